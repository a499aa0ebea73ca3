/*
 * Who owns a slot: submit, claim, finish, revoke, mail, the ready ring, the done
 * stack, the orphan ring, and the supervisor's reclaiming, with workers that are
 * killed between any two of their steps. How anybody sleeps is in wake.pml: here a
 * worker waits until there is something to claim.
 *
 * A step is one atomic operation of the C code, or a plain access to memory that
 * others look at, with what its process does in private around it. The names at
 * the right margin say which.
 *
 *   word[]      tide_slot.word: state, owner, sequence (open: owner 0)
 *   item[]      the request;  reply[]  the reply; both plain memory
 *   ring, head, tail, mail[], done_*, next[], orphan*, hand[]   as in the board
 *   flight[], entries[], spare[], seen    the host's own: in_flight, entries,
 *               free_slots, orphans_seen
 *   in capitals: what only the proof knows. RUNNER[] is who may write to a slot,
 *               FINISHED and DELIVERED are sets of items, TARGET[] whose mail it is
 *
 * Proved: a slot has one owner; no item is run again that was finished, none is
 * delivered twice, none with the reply of another; mail is its worker's alone; what
 * is LOST was held by a dead worker; rings do not overflow; and every item comes to
 * its end: the model stops nowhere else (invalid end states).
 *
 * Spin executes steps in one order that all processes see. Where the code asks for
 * less than that (acquire, release, relaxed), this is why it is enough:
 *   word READY, relaxed entry, tail   one writer; the tail releases both, and is
 *               read with acquire. A worker that reads an older word or entry
 *               fails in its swap, which is always on the newest word
 *   own()       acquire: the swap reads READY, or a later word of the same release
 *               sequence, so that the request is seen
 *   DONE, push  release; the host's exchange acquires, and every push before the
 *               last is in its release sequence (all are read-modify-writes)
 *   hand        relaxed: read by the supervisor, which has reaped: a death and
 *               waitpid(2) order everything before everything
 *   orphan_tail the host's acquire of it sees what the supervisor has seen of the
 *               dead worker, its push with it: so the exchange after it finds that
 *               push. (These two loads are in this order by acquire.)
 *   mail        seq_cst, its store releases word and request
 *   help        release, read with acquire: who sees the new head sees the claim
 *
 * sound: SLOTS=1 LOOKS
 * sound: ITEMS=2
 * sound: WORKERS=1 MAILS=1 REVOKES=1
 * sound: WORKERS=1 MAILS=2 REVOKES=1 DEATHS=0
 * broken: CLAIM_BLIND
 * broken: RECLAIM_FIRST
 * broken: HAND_LATE
 * broken: HEAD_FIRST
 * broken: LOST_DONE
 * broken: RELEASE_EARLY
 * broken: ORPHAN_SILENT
 * broken: TAIL_LATE SLOTS=1 LOOKS
 * broken: ANY_SEQUENCE SLOTS=1
 * broken: ORPHANS_FEW SLOTS=1 DEATHS=2
 * broken: REVOKE_BLIND WORKERS=1 MAILS=1 REVOKES=1
 * broken: MAIL_UNNAMED WORKERS=1 MAILS=2 REVOKES=1 DEATHS=0
 * broken: ROTATE_STALE WORKERS=1 REVOKES=5 DEATHS=0
 * broken: ROTATE_NEVER WORKERS=1 REVOKES=5 DEATHS=0
 * large: SLOTS=1 DEATHS=2
 * large: WORKERS=1 REVOKES=5 DEATHS=0
 * large: MAILS=1
 * large: MAILS=1 REVOKES=1
 */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef ITEMS
#define ITEMS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef REVOKES
#define REVOKES 0
#endif
#ifndef MAILS
#define MAILS 0
#endif

/* The host looks when there is something, or at any time. */
#ifdef LOOKS
#define MAY_LOOK (true)
#else
#define MAY_LOOK (done_count != 0 || orphan_tail != seen)
#endif

#define RING (2 * SLOTS)
#ifdef ORPHANS_FEW
#define ORPHANS SLOTS
#else
#define ORPHANS (2 * SLOTS)
#endif
#define ALL     ((1 << ITEMS) - 1)
#define NONE    255
#define BIT(i)  (1 << (i))

#define FREE    0
#define READY   1
#define CLAIMED 2
#define DONE    3
#define LOST    4

typedef word_t { byte state; byte owner; byte sequence };
typedef name_t { byte slot; byte sequence }; /* slot + 1; 0: nobody's */

word_t word[SLOTS];
byte item[SLOTS];
byte reply[SLOTS];
byte next[SLOTS];

byte ring[RING];
byte head, tail;

byte done_count, done_link;

name_t orphan[ORPHANS]; /* slot, not slot + 1 */
byte orphan_tail, seen;

name_t mail[WORKERS];
byte hand[WORKERS];

byte RUNNER[SLOTS];
byte TARGET[SLOTS];
byte FINISHED, DELIVERED;

/* A process is killed, is gone (a zombie), and is reaped. */
bit killed[WORKERS];
bit gone[WORKERS];

/* ---- worker ---- */

inline own(s, sq, w, owner_seen, ok)
{
#ifdef CLAIM_BLIND
    ok = (word[s].state == READY && word[s].owner == owner_seen &&
          word[s].sequence == sq);
    if
    :: ok -> d_step { claim_word(s, sq, w) }
    :: else
    fi;
#else
    d_step { /* own(): compare-and-swap */
        ok = (word[s].state == READY && word[s].owner == owner_seen &&
              word[s].sequence == sq);
        if
        :: ok -> claim_word(s, sq, w)
        :: else
        fi
    }
#endif
#ifndef HAND_LATE
    if
    :: ok -> hand[w] = s + 1 /* own(): store of hand */
    :: else
    fi
#endif
}

inline claim_word(s, sq, w)
{
    word[s].state = CLAIMED;
    word[s].owner = w;
    word[s].sequence = sq;
    assert(RUNNER[s] == 0);
    assert((FINISHED & BIT(item[s])) == 0);
    assert(TARGET[s] == 0 || TARGET[s] == w + 1);
    RUNNER[s] = w + 1
}

proctype worker(byte w)
{
    byte slot, sequence, at, count;
    bit owned;
end_born:
    {
end_rest:
        do
        :: atomic { (mail[w].slot != 0 || head < tail) -> /* it rests */
                owned = 0; at = 0; count = 0; slot = 0; sequence = 0 }

            d_step { /* claim_mail(): load */
                slot = mail[w].slot;
                sequence = mail[w].sequence
            }
            if
            :: slot != 0 ->
                slot--;
                own(slot, sequence, w, w + 1, owned);
                d_step { /* claim_mail(): swap to 0 */
                    if
#ifndef MAIL_UNNAMED
                    :: mail[w].slot == slot + 1 &&
                       mail[w].sequence == sequence ->
#else
                    :: mail[w].slot == slot + 1 ->
#endif
                        mail[w].slot = 0; mail[w].sequence = 0
                    :: else
                    fi
                }
            :: else
            fi;

            do
            :: owned -> break
            :: else ->
                at = head; /* tide_board_claim(): load of head */
                if
                :: at >= tail -> break /* load of tail */
                :: else
                fi;
                slot = ring[at % RING]; /* load of the entry */
                d_step { /* load of the word */
                    sequence = word[slot].sequence;
                    count = (word[slot].state == READY &&
                             word[slot].owner == 0)
                }
#ifdef HEAD_FIRST
                head = (head == at -> at + 1 : head);
#endif
                if
                :: count != 0 -> own(slot, sequence, w, 0, owned)
                :: else
                fi;
                d_step { /* tide_help_head(): swap */
                    count = 0;
                    if
                    :: head == at -> head = at + 1
                    :: else
                    fi;
                    at = 0
                }
            od;

            if
            :: owned ->
                reply[slot] = item[slot]; /* the item's function */
                d_step { /* tide_board_finish(): DONE */
                    assert(RUNNER[slot] == w + 1 &&
                           word[slot].state == CLAIMED);
                    word[slot].state = DONE;
                    RUNNER[slot] = 0;
                    FINISHED = FINISHED | BIT(item[slot])
                }
#ifdef HAND_LATE
                hand[w] = slot + 1;
#endif
                do
                :: d_step { count = done_count; at = done_link } /* load */
                    next[slot] = at; /* plain store of the link */
                    if
                    :: d_step { done_count == count && done_link == at -> /* swap */
                            done_count = count + 1; done_link = slot + 1 }
                        break
                    :: d_step { !(done_count == count && done_link == at) ->
                            skip }
                    fi
                od
            :: else
            fi
        od
    } unless {
        atomic {
            killed[w] ->
            slot = 0;
            do
            :: slot < SLOTS ->
                if
                :: RUNNER[slot] == w + 1 -> RUNNER[slot] = 0
                :: else
                fi;
                slot++
            :: else -> break
            od;
            slot = 0; sequence = 0; at = 0; count = 0; owned = 0;
            gone[w] = 1
        }
        atomic { !killed[w] -> gone[w] = 0 } /* its replacement */
        goto end_born
    }
}

/* ---- supervisor ---- */

inline report(s, sq)
{
    d_step { /* report_orphan(): the entry */
        assert(orphan_tail - seen < ORPHANS);
        orphan[orphan_tail % ORPHANS].slot = s;
        orphan[orphan_tail % ORPHANS].sequence = sq
    }
    orphan_tail++ /* report_orphan(): the tail */
}

inline reclaim(w)
{
    i = 0;
    do
    :: i < SLOTS ->
        d_step { /* lose_claimed(): load of the word */
            sq = word[i].sequence;
            held = (word[i].state == CLAIMED && word[i].owner == w)
        }
        if
        :: held ->
            d_step { /* lose_claimed(): LOST */
                word[i].state = LOST; word[i].owner = w; word[i].sequence = sq
            }
#ifndef ORPHAN_SILENT
            report(i, sq)
#endif
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = hand[w]; /* tide_board_reclaim(): load of hand */
    if
    :: i != 0 ->
        i--;
        d_step { /* tide_board_reclaim(): load of the word */
            sq = word[i].sequence;
            held = (word[i].state == DONE && word[i].owner == w)
        }
        if
        :: held ->
#ifdef LOST_DONE
            d_step { word[i].state = LOST; word[i].sequence = sq }
#endif
            report(i, sq)
        :: else
        fi
    :: else
    fi;
    hand[w] = 0; /* tide_board_reclaim(): store of hand */
    d_step { i = 0; sq = 0; held = 0 }
}

proctype supervisor()
{
    byte w, i, sq, deaths;
    bit held;
end_idle:
    do
    :: deaths < DEATHS ->
        deaths++;
        select(w : 0 .. WORKERS - 1);
#ifdef RECLAIM_FIRST
        reclaim(w);
        killed[w] = 1;
        gone[w];
#else
        killed[w] = 1;
        gone[w]; /* reaped */
        reclaim(w);
#endif
        killed[w] = 0;
        atomic { !gone[w] -> w = 0 }
    od
}

/* ---- host ---- */

/* append(), of a slot that is READY. */
inline append(s)
{
    d_step { /* the entry */
        entries[s] = tail;
        ring[tail % RING] = s
    }
    tail++ /* the tail */
}

/* rotate(), up to the tail as it was. */
inline rotate()
{
    end = tail;
    do
    :: at = head; /* load of head */
        if
        :: at >= end -> break
        :: else
        fi;
        d_step { /* the entry, which only we write, and its word */
            other = ring[at % RING];
#ifdef ROTATE_STALE
            live = (word[other].state == READY && word[other].owner == 0)
#else
            live = (word[other].state == READY && word[other].owner == 0 &&
                    entries[other] == at)
#endif
        }
        if
        :: live -> append(other)
        :: else
        fi;
        d_step { /* tide_help_head() */
            live = 0; other = 0;
            if
            :: head == at -> head = at + 1
            :: else
            fi
        }
    od;
    at = 0;
    d_step { end = 0; other = 0 }
}

/* The lowest bit of `todo` goes out, to anybody or as mail. */
inline submit()
{
    d_step { /* tide_board_take(), the request */
        spares--;
        s = spare[spares];
        i = 0;
        do
        :: (todo & BIT(i)) == 0 -> i++
        :: else -> break
        od;
        todo = todo & ~BIT(i);
        assert(RUNNER[s] == 0);
        item[s] = i;
        reply[s] = NONE;
        i = 0
    }
    if
    :: to = NONE
    :: mails > 0 -> d_step { mails--; to = 0 }
    fi;
    if
    :: to != NONE && mail[to].slot != 0 -> /* tide_board_submit_to(): load */
        to = NONE /* it has mail: to anybody */
    :: else
    fi;
    if
    :: to == NONE ->
        d_step { TARGET[s] = 0; crowded = (tail - head >= RING) } /* ring_is_full() */
        if
#ifndef ROTATE_NEVER
        :: crowded -> rotate()
#endif
        :: else
        fi;
        assert(tail - head < RING);
        d_step { /* tide_board_submit(): READY */
            crowded = 0;
            word[s].sequence++;
            word[s].owner = 0;
            word[s].state = READY;
            flight[s] = word[s].sequence
        }
        append(s)
    :: else ->
        d_step { /* tide_board_submit_to(): READY */
            TARGET[s] = to + 1;
            word[s].sequence++;
            word[s].owner = to + 1;
            word[s].state = READY;
            flight[s] = word[s].sequence
        }
        d_step { /* the mail */
            mail[to].slot = s + 1;
            mail[to].sequence = flight[s]
        }
    fi;
    d_step { s = 0; to = 0 }
}

inline revoke()
{
    revokes--;
    select(s : 0 .. SLOTS - 1);
    to = 0;
    d_step { /* tide_board_revoke(): load of the word */
        live = (flight[s] != 0 && word[s].state == READY);
        to = word[s].owner
    }
    if
    :: live ->
#ifdef REVOKE_BLIND
        word[s].state = FREE;
#else
        d_step { /* tide_board_revoke(): swap */
            if
            :: word[s].state == READY -> word[s].state = FREE; word[s].owner = 0
            :: else -> live = 0
            fi
        }
#endif
        if
        :: live ->
            if
            :: to != 0 ->
                d_step { /* unmail(): swap */
                    if
                    :: mail[to - 1].slot == s + 1 &&
                       mail[to - 1].sequence == flight[s] ->
                        mail[to - 1].slot = 0; mail[to - 1].sequence = 0
                    :: else
                    fi
                }
            :: else
            fi;
            d_step {
                flight[s] = 0;
                todo = todo | BIT(item[s]);
                spare[spares] = s;
                spares++
            }
        :: else
        fi
    :: else
    fi;
    d_step { live = 0; s = 0; to = 0 }
}

/* arrive() */
inline arrive(which, sq)
{
    if
#ifdef ANY_SEQUENCE
    :: flight[which] != 0 ->
#else
    :: flight[which] != 0 && flight[which] == sq ->
#endif
        flight[which] = 0;
        arrived[arrivals] = which;
        arrivals++
    :: else
    fi
}

/* gather(), then every arrival in its order but one that is reversed. */
inline collect()
{
#ifndef TAIL_LATE
    end = orphan_tail; /* (1) load */
#endif
    if
    :: done_count != 0 -> /* load of done */
        d_step { /* (2) exchange */
            at = done_link; left = done_count;
            done_link = 0; done_count = 0
        }
        do
        :: left > 0 && at != 0 ->
            d_step { /* the word, and the link */
                s = at - 1;
                at = next[s];
                left--;
                arrive(s, word[s].sequence)
            }
        :: else -> break
        od;
        assert(left == 0)
    :: else
    fi;
#ifdef TAIL_LATE
    end = orphan_tail;
#endif
    do
    :: seen != end -> /* (3) */
        d_step {
            s = orphan[seen % ORPHANS].slot;
            arrive(s, orphan[seen % ORPHANS].sequence);
            seen++
        }
    :: else -> break
    od;
    at = 0;
    d_step { end = 0; left = 0; s = 0 }
    do
    :: arrivals > 0 -> take_in()
    :: else -> break
    od
}

inline take_in()
{
    d_step { arrivals--; s = arrived[arrivals] }
#ifdef RELEASE_EARLY
    d_step { word[s].state = FREE; word[s].owner = 0 }
#endif
    d_step { /* tide_board_next_done(): load of the word; the reply */
        if
        :: word[s].state == DONE ->
            assert(reply[s] == item[s]);
            assert((FINISHED & BIT(item[s])) != 0);
            assert((DELIVERED & BIT(item[s])) == 0);
            DELIVERED = DELIVERED | BIT(item[s])
        :: else ->
            assert(word[s].state == LOST);
            assert((FINISHED & BIT(item[s])) == 0);
            assert(RUNNER[s] == 0);
            todo = todo | BIT(item[s])
        fi
    }
    d_step { /* tide_board_release() */
        word[s].state = FREE;
        word[s].owner = 0;
        spare[spares] = s;
        spares++;
        s = 0
    }
}

proctype host()
{
    byte flight[SLOTS], entries[SLOTS], spare[SLOTS], arrived[SLOTS];
    byte todo = ALL, spares, arrivals, revokes = REVOKES, mails = MAILS;
    byte s, i, at, end, left, to, other;
    bit live, crowded;
    d_step {
        spares = SLOTS;
        i = 0;
        do
        :: i < SLOTS -> spare[i] = SLOTS - 1 - i; i++
        :: else -> break
        od;
        i = 0
    }
    do
    :: todo != 0 && spares > 0 -> submit()
    :: revokes > 0 && spares < SLOTS -> revoke()
    :: MAY_LOOK -> collect()
    :: DELIVERED == ALL -> break
    od;
    /* Late reports and spent entries may lie there; nothing is in flight. */
    assert(FINISHED == ALL && todo == 0 && spares == SLOTS)
}

init
{
    byte w;
    atomic {
        run supervisor();
        run host();
        do
        :: w < WORKERS -> run worker(w); w++
        :: else -> break
        od
    }
}
