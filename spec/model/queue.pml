/*
 * The queue of src/share/queue.c: a chain of segments between two guards, and what is
 * left of it when a process is killed between any two of its steps.
 *
 * A step is one access to shared memory. A guard is a robust mutex: of a dead owner the
 * next one is told, and mends. Sizes are items here; a segment has room for one, so
 * that its end is always near. There are segments enough for every run, and a freed one
 * is never used again: whoever looks at one then is found out.
 *
 *   published[], next[], taken[]   of a segment, as in struct tide_segment
 *   tail, head, put_count          as in struct tide_queue
 *   waits, rung                    the consumer's bit among the takers, and its bell
 *   put_guard, get_guard           who is inside, NOBODY, or LEFT by one that died
 *
 * Proved: an item is taken once at most, in the order of the puts, and every one whose
 * put has returned is, unless the consumer that took it died; nobody looks at a freed
 * segment; and when nothing moves any more, nobody waits for a guard, and no consumer
 * sleeps while there is an item. Mutants:
 *   TAIL_NOT_LOOKED_AT   the consumer frees a segment that is still the tail
 *   NO_MENDING           of the tail
 *   WAKE_LOOKS_FIRST     the producer looks for sleepers before it publishes
 *   SLEEP_LOOKS_FIRST    the consumer looks for items before it stands in line
 *
 * sound: CONSUMERS=1 DEATHS=0
 * sound: CONSUMERS=1 DEATHS=1
 * sound: DEATHS=1 ITEMS=1 LONE
 * broken: TAIL_NOT_LOOKED_AT CONSUMERS=1 DEATHS=1
 * broken: NO_MENDING CONSUMERS=1 DEATHS=1
 * broken: WAKE_LOOKS_FIRST CONSUMERS=1 DEATHS=0
 * broken: SLEEP_LOOKS_FIRST CONSUMERS=1 DEATHS=0
 * large: DEATHS=1
 */
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef ITEMS
#define ITEMS 2 /* of each producer */
#endif

#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#define PRODUCERS 2
#define SEGMENTS  (PRODUCERS * (ITEMS + 1) + 2)
#define NOBODY    0
#define LEFT      255
#define ME        (_pid + 1)

bit published[SEGMENTS], taken[SEGMENTS], freed[SEGMENTS];
byte item[SEGMENTS], next[SEGMENTS];
byte tail = 1, head = 1;
byte fresh = 2; /* segments from here on were never used */
byte put_guard, get_guard;

bit waits[CONSUMERS], rung[CONSUMERS], asleep[CONSUMERS];
byte deaths = DEATHS;
byte returned;        /* puts that have returned */
byte got;             /* items that were taken */
byte last[PRODUCERS]; /* the last item of each that was taken */
bit dead[PRODUCERS + CONSUMERS];

#define ITEM(p, i)  ((p) * 16 + (i))
#define PRODUCER(x) ((x) / 16)
#define NUMBER(x)   ((x) % 16)

inline look_at(s) { assert(s != 0 && !freed[s]) }

/* Go inside; the last one may have died there. */
inline enter(guard, was_left)
{
    atomic {
        (guard == NOBODY || guard == LEFT);
        was_left = (guard == LEFT);
        guard = ME
    }
}

inline leave(guard) { guard = NOBODY }

/* tide_queue_enter_put() */
inline enter_put()
{
    enter(put_guard, was_left);
    if
    :: was_left ->
#ifndef NO_MENDING
        do
        :: d_step { at = tail; look_at(at) }
            if
            :: d_step { !freed[at] && next[at] != 0 -> tail = next[at] }
            :: d_step { !freed[at] && next[at] == 0 } break
            :: d_step { freed[at] -> assert(false) }
            fi
        od
#endif
        skip
    :: else
    fi
}

/* Wake whoever is in line. */
inline wake_takers()
{
    if
    :: d_step { waits[0] -> waits[0] = 0 } d_step { rung[0] = 1; asleep[0] = 0 }
#if CONSUMERS > 1
    :: d_step { !waits[0] && waits[1] -> waits[1] = 0 } d_step { rung[1] = 1; asleep[1] = 0 }
    :: d_step { !waits[0] && !waits[1] }
#else
    :: d_step { !waits[0] }
#endif
    fi
}

proctype producer(byte p)
{
    byte i, s, at;
    bit was_left;
    {
        for (i : 1 .. ITEMS) {
#ifdef WAKE_LOOKS_FIRST
            wake_takers();
#endif
            enter_put();
            d_step { s = tail; look_at(s) }
            if
            :: published[s] -> /* there is no room in it */
                d_step { at = fresh; fresh++ }
                d_step { look_at(s); next[s] = at }
                tail = at;
                s = at
            :: else
            fi;
            d_step { look_at(s); item[s] = ITEM(p, i) }
            d_step { look_at(s); published[s] = 1 }
            leave(put_guard);
#ifndef WAKE_LOOKS_FIRST
            wake_takers();
#endif
            returned++
        }
    } unless { dead[p] }
}

/* Is there something to take? Without the guard: a hint. */
#define HAS_ITEM (published[head] && !taken[head] || next[head] != 0)

proctype consumer(byte k)
{
    byte s, n, x, at;
    bit was_left, none;
    {
        do
        :: enter(get_guard, was_left);
            none = 0;
            do
            :: d_step { s = head; look_at(s); }
                if
                :: published[s] && !taken[s] -> break
                :: else ->
                    d_step { look_at(s); n = next[s] }
                    if
                    :: n == 0 -> none = 1; break
                    :: n != 0 && published[s] && !taken[s] -> break
                    :: else ->
#ifndef TAIL_NOT_LOOKED_AT
                        if
                        :: tail == s -> enter_put(); leave(put_guard)
                        :: else
                        fi;
#endif
                        head = n;
                        freed[s] = 1
                    fi
                fi
            od;
            if
            :: !none ->
                d_step {
                    look_at(s);
                    x = item[s];
                    assert(x != 0 && NUMBER(x) > last[PRODUCER(x)])
                }
                d_step { taken[s] = 1; last[PRODUCER(x)] = NUMBER(x); got++ }
                leave(get_guard)
            :: else ->
                leave(get_guard);
                /* tide_queue_wait_for_item() */
#ifdef SLEEP_LOOKS_FIRST
                if
                :: HAS_ITEM -> goto again
                :: else
                fi;
#endif
                rung[k] = 0;
                waits[k] = 1;
#ifndef SLEEP_LOOKS_FIRST
                if
                :: HAS_ITEM -> waits[k] = 0; goto again
                :: else
                fi;
#endif
                d_step {
                    if
                    :: !rung[k] -> asleep[k] = 1
                    :: else
                    fi
                }
end:            if
                :: !asleep[k]
                :: d_step { asleep[k] && deaths < DEATHS && HAS_ITEM -> asleep[k] = 0 }
                    /* a slice is over: who owed the ring may be dead */
                fi;
                waits[k] = 0
            fi;
again:      skip
        od
    } unless { dead[PRODUCERS + k] }
}

#define DIE(d) \
    d_step { \
        deaths > 0 && !dead[d] -> deaths--; dead[d] = 1; \
        if :: put_guard == pids[d] + 1 -> put_guard = LEFT :: else fi; \
        if :: get_guard == pids[d] + 1 -> get_guard = LEFT :: else fi; \
        if :: d >= PRODUCERS -> waits[d - PRODUCERS] = 0 :: else fi \
    }

pid pids[PRODUCERS + CONSUMERS];

init {
    atomic {
        pids[0] = run producer(0);
#ifndef LONE
        pids[1] = run producer(1);
#endif
        pids[2] = run consumer(0)
#if CONSUMERS > 1
        ;
        pids[3] = run consumer(1)
#endif
    }
    do
#ifndef LONE
    :: DIE(0)
#endif
#if CONSUMERS > 1
    :: DIE(2)
#endif
    :: break /* one of each lives */
    od;
    /* When nothing moves any more, nobody is inside, and what was put was got. */
    timeout;
    assert(put_guard == NOBODY || put_guard == LEFT);
    assert(get_guard == NOBODY || get_guard == LEFT);
    assert(got >= returned)
}
