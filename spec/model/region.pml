/*
 * What becomes of blocks: a worker that allocates, publishes, replaces and frees,
 * the host that gives blocks back by the return stack, and the supervisor that
 * settles the region of a worker killed between any two of its steps (region.c,
 * and tide_board_publish()). The replacement finds its blocks by walking them.
 *
 * A step is one store or load of shared memory in the code's order; what is at the
 * right margin says which. Blocks are all of one size. A slot's word and how it is
 * claimed are in slots.pml; here a slot is taken in one step.
 *
 *   state[], next[]              struct block
 *   returned, pending, outdated  struct tide_region; block + 1, or 0
 *   top                          blocks carved
 *   form[], off[]                of a reply: is there a block, and which
 *   list                         the owner's free lists, as a set: private, and
 *                                empty after its death
 *   LIVE[]                       the proof's: 0 nobody's, 1 the owner's, that has
 *                                not published it, 2 published or the host's
 *
 * Proved: no block is given to two; what the host finds published is a block in
 * use; and at the end each block is in the free lists or on the return stack, once:
 * none leaks, whatever the instant of the death.
 *
 * Order: the owner's stores are seen in order by the supervisor, since it reads
 * them after waitpid(2), that is after all of them; the fences (release, in
 * name_pending() and tide_board_publish()) keep the compiler and the processor from
 * changing their order, which is what a kill would see. The push on `returned`
 * releases the link and our reads of the payload, the owner's pop acquires. The
 * supervisor's walk acquires the head; below it are only links that were pushed
 * before, each released by its push, and all pushes are one release sequence with
 * the pops (read-modify-writes).
 *
 * sound: DEATHS=1
 * sound: ITEMS=2 DEATHS=2
 * broken: PENDING_LATE
 * broken: POP_UNNAMED
 * broken: POP_ALL
 * broken: FORM_FIRST
 * broken: OLD_UNNAMED
 * broken: STACK_UNASKED
 * broken: PUBLISHED_UNASKED
 * broken: GIVEN_LATE
 * broken: FORGOTTEN_EARLY
 * broken: UNSETTLED
 * large: DEATHS=2
 * large: DEATHS=2 BLOCKS=4 ITEMS=4
 */
#ifndef BLOCKS
#define BLOCKS 3
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef ITEMS
#define ITEMS 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif

#define BIT(i) (1 << (i))

#define NONE  0
#define FREE  1
#define USED  2
#define GIVEN 3

#define IDLE    0 /* of a slot; READY while there are items */
#define CLAIMED 1
#define DONE    2
#define LOST    3

byte state[BLOCKS], next[BLOCKS], LIVE[BLOCKS];
byte returned, pending, outdated, top;

byte slot[SLOTS];
bit form[SLOTS];
byte off[SLOTS]; /* block + 1 */

byte list;
byte items = ITEMS;
bit killed, gone, resting;

/* ---- owner ---- */

/* release(): the state, and the list. */
inline set_free(b)
{
    d_step {
        assert(LIVE[b] == 0);
        assert((list & BIT(b)) == 0);
        state[b] = FREE;
        list = list | BIT(b)
    }
}

inline settle()
{
    pending = 0; /* tide_heap_settle() */
    outdated = 0
}

inline take_returned()
{
    at = returned; /* load */
#ifdef POP_ALL
    returned = 0;
    do
    :: at != 0 ->
        link = next[at - 1];
        pending = at;
        set_free(at - 1);
        at = link
    :: else -> break
    od;
#else
    do
    :: at != 0 ->
        link = next[at - 1]; /* load of the link */
#ifndef POP_UNNAMED
        pending = at; /* name_pending() */
#endif
        if /* swap */
        :: d_step { returned == at -> returned = link }
            set_free(at - 1);
            at = returned /* load */
        :: d_step { returned != at -> at = returned }
        fi
    :: else -> break
    od;
#endif
    settle()
}

/* tide_heap_alloc(): `b` or, if the region is exhausted, BLOCKS */
inline alloc()
{
    if
    :: returned != 0 -> take_returned() /* load */
    :: else
    fi;
    if
    :: list != 0 ->
        d_step { /* pop_free() */
            b = 0;
            do
            :: (list & BIT(b)) == 0 -> b++
            :: else -> break
            od;
            list = list & ~BIT(b)
        }
    :: list == 0 && top < BLOCKS ->
        b = top;
        state[b] = FREE; /* carve(): the header */
        top = b + 1 /* carve(): top */
    :: list == 0 && top == BLOCKS -> b = BLOCKS
    fi;
    if
    :: b < BLOCKS ->
#ifndef PENDING_LATE
        pending = b + 1; /* name_pending() */
#endif
        d_step {
            assert(LIVE[b] == 0);
            LIVE[b] = 1;
            state[b] = USED
        }
#ifdef PENDING_LATE
        pending = b + 1;
#endif
#ifdef FORGOTTEN_EARLY
        settle()
#endif
    :: else
    fi
}

/* tide_board_publish() */
inline publish()
{
    d_step { has = form[s]; old = off[s] }
#ifndef OLD_UNNAMED
    if
    :: has -> outdated = old /* tide_heap_outdate() */
    :: else
    fi;
#endif
#ifdef FORM_FIRST
    form[s] = 1;
#endif
    d_step { /* the offset */
        off[s] = b + 1;
        if
        :: has -> LIVE[b] = 2; LIVE[old - 1] = 0
        :: else
        fi
    }
#ifndef FORM_FIRST
    d_step { form[s] = 1; LIVE[b] = 2 } /* the flag */
#else
    d_step { LIVE[b] = 2 }
#endif
    if
    :: has ->
        pending = old; /* tide_heap_free() */
        set_free(old - 1);
        settle()
    :: else
    fi;
    settle();
    old = 0;
    has = 0
}

proctype owner()
{
    byte s, b, at, link, old;
    bit has;
end_born:
    {
        at = top; /* tide_heap_open() */
        b = 0;
        do
        :: b < at ->
            if
            :: state[b] == FREE -> set_free(b) /* load of the state */
            :: else
            fi;
            b++
        :: else -> break
        od;
        at = 0;
        b = 0;
        do
        :: resting = 1;
end_rest:
            if
            :: atomic { items > 0 && slot[0] == IDLE -> s = 0 }
            :: atomic { items > 0 && SLOTS > 1 && slot[SLOTS - 1] == IDLE ->
                    s = SLOTS - 1 }
            fi;
            d_step { resting = 0; items--; slot[s] = CLAIMED }
            do /* results that grow */
            :: alloc();
                if
                :: b < BLOCKS -> publish()
                :: else -> break
                fi
            :: break
            od;
            b = 0;
            d_step { link = 0; slot[s] = DONE; s = 0 }
        od
    } unless {
        atomic {
            killed ->
            d_step {
                b = 0;
                do
                :: b < BLOCKS ->
                    if
                    :: LIVE[b] == 1 -> LIVE[b] = 0
                    :: else
                    fi;
                    b++
                :: else -> break
                od;
                s = 0; b = 0; at = 0; link = 0; old = 0; has = 0; list = 0;
                resting = 0
            }
            gone = 1
        }
        atomic { !killed -> gone = 0 }
        goto end_born
    }
}

/* ---- supervisor ---- */

/* settle_one(): what was pending or outdated, unless it is somebody's. */
inline settle_one(which)
{
    b = which; /* load */
    if
#ifdef PUBLISHED_UNASKED
    :: b != 0 ->
#else
    :: b != 0 && b != published ->
#endif
#ifndef STACK_UNASKED
        at = returned; /* on_return_stack(): load */
        do
        :: at == 0 || at == b -> break
        :: else -> at = next[at - 1] /* load of the link */
        od;
#endif
        if
        :: at == 0 -> state[b - 1] = FREE
        :: else
        fi;
        at = 0
    :: else
    fi
}

inline settle_region()
{
#ifndef UNSETTLED
    settle_one(pending);
    settle_one(outdated);
#endif
    pending = 0;
    outdated = 0
}

proctype supervisor()
{
    byte s, b, at, published, deaths;
end_idle:
    do
    :: deaths < DEATHS ->
        deaths++;
        killed = 1;
        gone; /* reaped */
        s = 0;
        do
        :: s < SLOTS ->
            if
            :: slot[s] == CLAIMED -> /* lose_claimed() */
                published = (form[s] -> off[s] : 0);
                settle_region();
                d_step { slot[s] = LOST; published = 0; items++ }
            :: else
            fi;
            s++
        :: else -> break
        od;
        settle_region(); /* tide_board_reclaim() */
        d_step { s = 0; b = 0 }
        killed = 0;
        !gone
    od
}

/* ---- host ---- */

/* tide_pool_release(): tide_region_return(), then the slot. */
inline give_back(s)
{
    if
    :: form[s] ->
        d_step {
            b = off[s] - 1;
            assert(state[b] == USED && LIVE[b] == 2);
            assert((list & BIT(b)) == 0)
        }
#ifndef GIVEN_LATE
        d_step { state[b] = GIVEN; LIVE[b] = 0 }
#else
        LIVE[b] = 0;
#endif
        at = returned; /* load */
        do
        :: next[b] = at; /* the link */
            if /* swap */
            :: d_step { returned == at -> returned = b + 1 }
                break
            :: d_step { returned != at -> at = returned }
            fi
        od;
#ifdef GIVEN_LATE
        state[b] = GIVEN;
#endif
        b = 0;
        at = 0
    :: else
    fi;
    d_step { form[s] = 0; slot[s] = IDLE }
}

#define ALL_IDLE (slot[0] == IDLE && slot[SLOTS - 1] == IDLE)

/* Each block is somewhere, once. */
inline account()
{
    at = returned;
    do
    :: at != 0 ->
        assert((found & BIT(at - 1)) == 0);
        found = found | BIT(at - 1);
        at = next[at - 1]
    :: else -> break
    od;
    assert((found & list) == 0);
    assert((found | list) == BIT(top) - 1)
}

proctype host()
{
    byte b, at, found;
    do
    :: slot[0] >= DONE -> give_back(0)
    :: SLOTS > 1 && slot[SLOTS - 1] >= DONE -> give_back(SLOTS - 1)
    :: atomic {
            ALL_IDLE && items == 0 && resting && !killed && !gone ->
            account();
            break
        }
    od
}

init
{
    atomic {
        run supervisor();
        run host();
        run owner()
    }
}
