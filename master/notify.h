/* notify.h - what the master tells the service manager: sd_notify(3)'s protocol, datagrams of KEY=value lines
 * to the socket that NOTIFY_SOCKET names. Nothing happens where it names none.
 *
 * Master process, on its loop. Never blocks: what the manager does not take at once is dropped; a state is
 * not said twice, but the watchdog's ping is, twice in its time.
 */
#ifndef RC_NOTIFY_H
#define RC_NOTIFY_H

#include <stdint.h>

/* Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and take them out of the environment. */
void notify_start(void);

void notify_ready(void);     /* READY=1: all workers serve, or a reload is over, well or not */
void notify_reloading(void); /* RELOADING=1 and when, as Type=notify-reload wants it */
void notify_stopping(void);  /* STOPPING=1 */

/* WATCHDOG=1 if half of its time is over. From the tick, so that a loop that stands still says nothing.
 * now_ms: clock_mono_ms(). */
void notify_tick(uint64_t now_ms);

void notify_stop(void);

#endif
