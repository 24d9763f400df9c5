/* config_confuse.h - the second pass: libconfuse reads the values of a scanned document.
 * Master process; not re-entrant (libconfuse itself keeps static state); never blocks.
 */
#ifndef RC_CONFIG_CONFUSE_H
#define RC_CONFIG_CONFUSE_H

#include "master/config_scan.h"

/* Fill the values of every entry of `doc`. What libconfuse refuses becomes a problem of the document. */
void confuse_read(struct scan_doc *doc);

#endif
