/* SPDX-License-Identifier: MIT */
/* meta: the language for editors, as text. */
#ifndef MOONGATE_SCRIPT_META_H
#define MOONGATE_SCRIPT_META_H

#include "base/buf.h"

/* Annotations for lua-language-server. */
void script_write_meta(struct buf *out);
/* A configuration for luacheck. */
void script_write_luacheck(struct buf *out);

#endif
