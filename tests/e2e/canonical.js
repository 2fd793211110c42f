// SPDX-License-Identifier: MIT
// Reads {streams: [{data: base64, count}]} on standard input, feeds each to Node's HTTP server (llhttp) as one connection, and prints what it
// saw: [{error, messages: [{method, url, headers, body, trailers}]}]. Bytes travel as latin1.
'use strict';
const http = require('http');
const {Duplex} = require('stream');

function play(data, count) {
  return new Promise((resolve) => {
    const seen = {error: null, messages: []};
    const socket = new Duplex({read() {}, write(chunk, encoding, done) { done(); }});
    for (const name of ['setTimeout', 'setNoDelay', 'setKeepAlive', 'ref', 'unref']) socket[name] = () => socket;
    const note = (request, body) => {
      seen.messages.push({method: request.method, url: request.url, headers: request.rawHeaders, body: body.toString('latin1'),
                          trailers: request.rawTrailers});
      // A few turns more, so that a message too many would show.
      if (seen.messages.length >= count) setTimeout(() => socket.destroy(), 5);
    };
    const serve = (request, response) => {
      const parts = [];
      request.on('data', (part) => parts.push(part));
      request.on('end', () => { note(request, Buffer.concat(parts)); response.end(); });
    };
    const server = http.createServer({maxHeaderSize: 1 << 20, insecureHTTPParser: false, keepAliveTimeout: 0}, serve);
    server.maxRequestsPerSocket = 0;
    server.on('checkContinue', serve);
    server.on('upgrade', (request) => note(request, Buffer.alloc(0)));
    server.on('clientError', (error) => { seen.error = `${error.code} ${error.message}`; socket.destroy(); });
    const late = setTimeout(() => { seen.error = 'too few messages'; socket.destroy(); }, 20000);
    socket.on('error', () => {});
    socket.on('close', () => { clearTimeout(late); resolve(seen); });
    server.emit('connection', socket);
    socket.push(data);
  });
}

let input = '';
process.stdin.setEncoding('utf8');
process.stdin.on('data', (part) => { input += part; });
process.stdin.on('end', async () => {
  const streams = JSON.parse(input).streams;
  const seen = await Promise.all(streams.map((stream) => play(Buffer.from(stream.data, 'base64'), stream.count)));
  process.stdout.write(JSON.stringify(seen), () => process.exit(0));
});
