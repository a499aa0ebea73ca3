/*
 * Who wakes whom: a worker's rest, the host's wait, kicks, nudges, the rally, mail,
 * resizing, closing, and the supervisor's rousing after each death and each stop.
 * What a claim is and what becomes of a slot is in slots.pml: here the ring is a
 * number of READY slots, and a claim one step.
 *
 * A step is one atomic operation; what is at the right margin says which. Spinning
 * or not, nudging or not and how long things take depend on time in the code; here
 * each may go either way at any time.
 *
 *   ready         slots in the ring; `buffered` ones are written, but not yet seen
 *   mail[]        tide_worker_record.mail, 0 or 1
 *   asleep, spinning, wake_at, closing, wanted      as in tide_board_shared
 *   done, orphan  how many are on the stack, and in the orphan ring
 *   wake[]        the futex word has changed since the worker read it, which is all
 *                 that counts;  DOZING[]  in the kernel, until it is woken
 *   event         the eventfd is readable
 *   HELD[]        it has claimed a slot;  STUCK[]  and runs it for ever
 *   STOPPED[]     by a signal: it makes no step, and may never make one again
 *
 * Proved: when nothing moves any more (`timeout`), then no worker that could do it
 * sleeps while there is work for it; the host does not sleep on what it waits for;
 * workers that are not wanted, or have nothing to wait for after the close, have
 * ended; and the host has got all but what is stuck.
 *
 * Four pairs of store-then-look rest on the total order of seq_cst. In each, to
 * take it away lets a processor look before its store is seen; that is what these
 * mutants do, the first by a store buffer:
 *   KICK_UNFENCED       host: ring's tail, look at `asleep` and `spinning`
 *   SLEEP_LOOKS_FIRST   worker: bit in `asleep`, look at ring, mail, closing, wanted
 *   HOST_LOOKS_FIRST    host: `wake_at`, look at the stack and the orphan ring
 *   FINISH_LOOKS_FIRST  worker: push, look at `wake_at`
 *   MAIL_LOOKS_FIRST    host: `mail`, look at the bit
 *   RESIZE_LOOKS_FIRST  host: `wanted`, look at the bit
 * Taking a bit or `wake_at` is a read-modify-write, which reads the newest value.
 *
 * sound: TASKS=1
 * sound: TASKS=1 DEATHS=1 CALM
 * sound: TASKS=1 STOPS=1 FOREVER CALM
 * sound: TASKS=1 RESIZES=1 CALM
 * broken: KICK_UNFENCED TASKS=1
 * broken: SLEEP_LOOKS_FIRST TASKS=1
 * broken: HOST_LOOKS_FIRST TASKS=1
 * broken: FINISH_LOOKS_FIRST TASKS=1
 * broken: MAIL_LOOKS_FIRST TASKS=1 MAILS=1 CALM
 * broken: RESIZE_LOOKS_FIRST TASKS=1 RESIZES=1 STUCKS=1 CALM
 * broken: FUTEX_BLIND TASKS=1
 * broken: CLOSE_SILENT TASKS=1
 * broken: NO_ROUSE TASKS=1 DEATHS=1 CALM
 * broken: STOP_UNNOTICED TASKS=1 STOPS=1 FOREVER CALM
 * broken: RALLY_OMITTED STUCKS=1 CALM
 * broken: END_SEEN_LATE TASKS=1 WANTED=1 EARLY NAPS=1 CALM
 * large: TASKS=1 RESIZES=1 STUCKS=1 CALM
 * large: TASKS=1 MAILS=1 RESIZES=2 WANTED=1 CALM
 * large: EARLY MAILS=1
 * large: TASKS=1 DEATHS=1
 * large: TASKS=1 STOPS=1
 * large: STUCKS=1
 * large-broken: UNMANNED TASKS=1 MAILS=1 RESIZES=2 WANTED=1 CALM
 * large-broken: SPIN_SILENT STUCKS=1
 * large-broken: MAIL_SILENT MAILS=1 STUCKS=1
 */
#ifndef TASKS
#define TASKS 2
#endif
#ifndef WANTED
#define WANTED 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef STUCKS
#define STUCKS 0
#endif
#ifndef NAPS
#define NAPS 0
#endif
#ifndef MAILS
#define MAILS 0
#endif
#ifndef RESIZES
#define RESIZES 0
#endif

#define WORKERS 2
#define NOBODY  255
#define BIT(i)  (1 << (i))

byte ready, buffered;
bit mail[WORKERS];
byte asleep, spinning;
byte done, orphan;
byte wake_at = NOBODY;
bit closing;
byte wanted = WANTED;
byte ordered = WANTED; /* as the supervisor has seen it last */
bit bell; /* LOOK: the board says something new */
bit wake[WORKERS];
bit DOZING[WORKERS];
bit event;

bit HELD[WORKERS], STUCK[WORKERS], STOPPED[WORKERS];
bit alive[WORKERS] = 1, killed[WORKERS], gone[WORKERS], left[WORKERS], ended[WORKERS];
byte stucks = STUCKS;
byte naps = NAPS;
bit told; /* a stop to be reported: of worker `whom` */
byte whom;

bit HOST_SLEEPS, HOST_ENDED;
byte HOST_COUNT;

/* ---- waking ---- */

inline wake_worker(i)
{
    wake[i] = 1; /* wake_worker(): add */
    DOZING[i] = 0 /* futex_wake */
}

/* tide_board_wake_any(); uses `bits`, `n` */
inline wake_any()
{
    bits = asleep; /* load */
    if
    :: (bits & BIT(0)) && n > 0 ->
        if
        :: d_step { (asleep & BIT(0)) -> asleep = asleep & ~BIT(0) } /* and */
            n--;
            wake_worker(0)
        :: d_step { !(asleep & BIT(0)) -> skip }
        fi
    :: else
    fi;
    if
    :: (bits & BIT(1)) && n > 0 ->
        if
        :: d_step { (asleep & BIT(1)) -> asleep = asleep & ~BIT(1) }
            wake_worker(1)
        :: d_step { !(asleep & BIT(1)) -> skip }
        fi
    :: else
    fi;
    d_step { bits = 0; n = 0 }
}

#ifdef KICK_UNFENCED
#define FENCE skip
#else
#define FENCE (buffered == 0) /* the store buffer has drained */
#endif

#define COUNT(set) (((set) & 1) + (((set) >> 1) & 1))

/* tide_board_kick() */
inline kick(count)
{
    FENCE;
    d_step { /* load of `spinning` */
        n = count;
        n = (n > COUNT(spinning) -> n - COUNT(spinning) : 0)
    }
    if
    :: n > 0 -> wake_any()
    :: else
    fi
}

/* tide_board_wake_one() */
inline wake_one(i)
{
    if
    :: d_step { (asleep & BIT(i)) -> asleep = asleep & ~BIT(i) }
        wake_worker(i)
    :: d_step { !(asleep & BIT(i)) -> skip }
    fi
}

/* ---- worker ---- */

/* has_reason(): five loads, until one finds something */
inline look()
{
    found = 0;
    if
    :: ready > 0 -> found = 1
    :: else ->
        if
        :: mail[w] -> found = 1
        :: else ->
            if
            :: closing -> found = 1
            :: else -> found = (w >= wanted)
            fi
        fi
    fi
}

inline claim()
{
    if
    :: d_step { mail[w] -> mail[w] = 0; HELD[w] = 1 }
#ifndef MAIL_SILENT
        if
        :: ready > 0 -> kick(1)
        :: else
        fi
#endif
    :: else ->
        if
        :: w >= wanted -> skip
        :: else ->
            if
            :: d_step { ready > 0 -> ready--; HELD[w] = 1 }
                if /* tide_board_pass_on() */
                :: ready > 0 -> kick(1)
                :: skip
                fi
            :: else
            fi
        fi
    fi
}

inline finish()
{
#ifdef FINISH_LOOKS_FIRST
    n = wake_at;
    d_step { HELD[w] = 0; done++; bits = done }
#else
    d_step { HELD[w] = 0; done++; bits = done } /* push: swap */
    n = wake_at; /* load */
#endif
    if
    :: n != NOBODY && bits >= n ->
        d_step { n = wake_at; wake_at = NOBODY } /* exchange */
        if
        :: n != NOBODY -> event = 1 /* tide_event_raise() */
        :: else
        fi
    :: else
    fi;
    n = 0;
    bits = 0
}

inline rest()
{
    if /* may_spin() */
#ifndef CALM
    :: spinning = spinning | BIT(w); /* spin_for_work(): or */
        do
        :: look();
            if
            :: found -> break
            :: else -> skip /* goes on, or */
            fi
        :: break /* ends in vain */
        od;
        spinning = spinning & ~BIT(w); /* and */
#ifndef SPIN_SILENT
        if
        :: ready > 1 -> kick(1)
        :: else
        fi
#endif
#endif
    :: skip
    fi;
    if
    :: found -> found = 0
    :: else ->
#ifndef FUTEX_BLIND
        wake[w] = 0; /* sleep_for_work(): load */
#endif
#ifdef SLEEP_LOOKS_FIRST
        look();
        asleep = asleep | BIT(w);
#else
        asleep = asleep | BIT(w); /* or */
        look();
#endif
#ifdef FUTEX_BLIND
        wake[w] = 0;
#endif
        if
        :: !found ->
            d_step { /* futex_wait: compares and falls asleep */
                if
                :: !wake[w] -> DOZING[w] = 1
                :: else
                fi
            }
            if
            :: !DOZING[w]
            :: naps > 0 -> naps--; DOZING[w] = 0 /* for no reason */
            fi
        :: else
        fi;
        asleep = asleep & ~BIT(w); /* and */
        found = 0
    fi;
    if /* tide_board_rest(): load of `wanted` */
    :: w >= wanted ->
        if
        :: mail[w]
        :: else -> goto leave
        fi
#ifndef END_SEEN_LATE
    :: w < wanted && closing -> /* load of `closing` */
        if
        :: ready > 0 /* load of the ring */
        :: else ->
            if
            :: mail[w] /* load of mail */
            :: else -> goto leave
            fi
        fi
    :: w < wanted && !closing
#else
    :: w < wanted && ready > 0
    :: w < wanted && ready == 0 ->
        if
        :: mail[w]
        :: else ->
            if
            :: closing -> goto leave
            :: else
            fi
        fi
#endif
    fi
}

proctype worker(byte w) provided (!STOPPED[w])
{
    byte n, bits;
    bit found;
born:
    {
        do
        :: claim();
            if
            :: HELD[w] ->
                if
                :: stucks > 0 && !killed[w] ->
                    d_step { stucks--; STUCK[w] = 1 }
                    killed[w] /* or for ever */
                :: skip
                fi;
                finish()
            :: else -> rest()
            fi
        od;
leave:  left[w] = 1; killed[w] = 1; /* by itself: code 0 */
        false
    } unless {
        atomic {
            killed[w] ->
            n = 0; bits = 0; found = 0; wake[w] = 0;
            DOZING[w] = 0; STUCK[w] = 0;
            alive[w] = 0; gone[w] = 1
        }
        atomic { !killed[w] -> alive[w] = 1 }
        goto born
    }
}

/* ---- supervisor ---- */

/* tide_board_wake_all() */
inline wake_all()
{
    kick(WORKERS);
    event = 1
}

/* bury(): reclaim, decide whether the place is over, wake all, fork */
inline bury(i)
{
    if
    :: HELD[i] -> d_step { HELD[i] = 0; orphan++ } /* report_orphan() */
    :: else
    fi;
    asleep = asleep & ~BIT(i); /* tide_board_forget_rest() */
    spinning = spinning & ~BIT(i);
    over = 0;
    if
    :: mail[i] /* is_over() */
    :: else ->
        over = (i >= ordered || (left[i] && (i >= wanted || closing)))
    fi;
    left[i] = 0;
#ifndef NO_ROUSE
    wake_all();
#endif
    if
    :: over -> ended[i] = 1
    :: else -> d_step { gone[i] = 0; killed[i] = 0 }
    fi;
    over = 0
}

/* tide_board_rouse(), and the caller's part */
inline rouse()
{
    i = whom;
#ifndef STOP_UNNOTICED
    asleep = asleep & ~BIT(i);
    spinning = spinning & ~BIT(i);
    wake_worker(i);
    wake_all();
#endif
    d_step { told = 0; i = 0 }
}

proctype supervisor()
{
    byte n, bits, i, deaths = DEATHS;
    bit over;
end_idle:
    do
    :: atomic { deaths > 0 && alive[0] && !killed[0] && !told ->
            killed[0] = 1; STOPPED[0] = 0; deaths-- }
        gone[0]
    :: gone[0] && !ended[0] -> bury(0)
    :: gone[1] && !ended[1] -> bury(1)
    :: told -> rouse()
    :: bell ->
        bell = 0;
        ordered = wanted; /* tide_crew_resize(): loads */
#ifdef UNMANNED
        over = (ordered < 2 || closing);
#else
        over = ((ordered < 2 || closing) && !mail[1]);
#endif
        if
        :: ended[1] && !over -> /* fork */
            d_step { ended[1] = 0; gone[1] = 0; killed[1] = 0 }
        :: else
        fi;
        over = 0
    od
}

/* SIGSTOP and SIGCONT, from anywhere. */
proctype outsider()
{
    byte stops = STOPS;
end_idle:
    do
    :: atomic { stops > 0 && !told && alive[0] && !killed[0] ->
            STOPPED[0] = 1; stops--; whom = 0; told = 1 }
#ifndef FOREVER
    :: STOPPED[0] -> STOPPED[0] = 0
#endif
    od
}

/* ---- host ---- */

/* What the processor has of the host's stores to the ring's tail. */
proctype store_buffer()
{
end_idle:
    do
    :: d_step { buffered > 0 -> ready = ready + buffered; buffered = 0 }
    od
}

/* A worker for what was submitted, unless one is awake that will come to it. */
inline nudge()
{
    FENCE;
    if
    :: asleep == 0 -> skip /* load */
    :: else ->
        if
        :: d_step { n = 1 } wake_any()
        :: COUNT(asleep) < wanted -> skip /* spins, is brisk, was woken */
        fi
    fi
}

#define IN_FLIGHT (TASKS - todo - got)

/* enough_arrived() */
inline look_up()
{
    enough = (done >= HOST_COUNT); /* load of the stack */
    if
    :: enough
    :: else -> enough = (orphan > 0) /* load of the orphan ring */
    fi
}

/* tide_board_wait() */
inline wait()
{
    d_step {
        HOST_COUNT = (count > IN_FLIGHT -> IN_FLIGHT : count);
        assert(HOST_COUNT > 0)
    }
    look_up();
    if
    :: enough
    :: else ->
#ifndef RALLY_OMITTED
        bits = ready + buffered; /* tide_board_rally() */
        if
        :: bits > 0 -> kick(bits)
        :: else
        fi;
#endif
#ifdef HOST_LOOKS_FIRST
        look_up();
        wake_at = HOST_COUNT;
#else
        wake_at = HOST_COUNT; /* store */
        look_up();
#endif
        if
        :: !enough ->
            HOST_SLEEPS = 1;
            event; /* poll(2) */
            d_step { HOST_SLEEPS = 0; event = 0 } /* tide_event_clear() */
        :: else
        fi;
        wake_at = NOBODY /* store */
    fi;
    enough = 0;
    count = 0
}

/* gather(): what was lost is to be done again. */
inline collect()
{
    d_step { n = orphan; orphan = 0; todo = todo + n }
    d_step { n = done; done = 0; got = got + n; n = 0 }
}

inline submit_to()
{
    if
    :: mail[to] -> skip /* load */
    :: else ->
        mails--;
        todo--;
#ifdef MAIL_LOOKS_FIRST
        bits = asleep;
        mail[to] = 1;
        if
        :: bits & BIT(to) -> wake_one(to)
        :: else
        fi;
#else
        mail[to] = 1; /* store */
        wake_one(to);
#endif
        bits = 0
    fi
}

inline resize()
{
    resizes--;
#ifdef RESIZE_LOOKS_FIRST
    bits = asleep;
    wanted = count;
    if
    :: count < 2 && (bits & BIT(1)) -> wake_one(1)
    :: else
    fi;
#else
    wanted = count; /* store */
    if
    :: count < 2 -> wake_one(1)
    :: else
    fi;
#endif
    bits = 0;
    bell = 1; /* the message */
    count = 0
}

proctype host()
{
    byte n, bits, count, todo = TASKS, got, mails = MAILS, resizes = RESIZES;
    bit enough, to;
    do
    :: todo > 0 -> d_step { todo--; buffered++ } /* tail: release */
        if
        :: kick(1)
        :: nudge()
        :: todo > 0 -> d_step { todo--; buffered++ }
            kick(2)
        fi
    :: todo > 0 && mails > 0 ->
        if
        :: to = 0
        :: wanted > 1 -> to = 1
        fi;
        submit_to();
        to = 0
    :: resizes > 0 -> count = 3 - wanted; resize()
    :: IN_FLIGHT > 0 ->
        if
        :: count = 1
        :: count = 2
        fi;
        wait();
        collect()
    :: got == TASKS -> break
#ifdef EARLY
    :: todo == 0 -> break
#endif
    od;
    closing = 1; /* tide_board_close() */
#ifndef CLOSE_SILENT
    kick(WORKERS);
#endif
    do
    :: got < TASKS ->
        count = 2;
        wait();
        collect()
    :: else -> break
    od;
    HOST_ENDED = 1
}

/* ---- when nothing moves ---- */

#define AWAKE(w) (!STOPPED[w] && !STUCK[w])
#define ABLE(w)  (AWAKE(w) && !gone[w])

#define EXCUSED(w) (!AWAKE(w) && (HELD[w] || mail[w]))

proctype judge()
{
    timeout ->
    assert(buffered == 0);
    assert(ready == 0 || !(ABLE(0) || (ABLE(1) && wanted > 1)));
    assert(!(mail[0] && AWAKE(0)) && !(mail[1] && AWAKE(1)));
    assert(!HOST_SLEEPS || (done < HOST_COUNT && orphan == 0));
    assert(wanted > 1 || ended[1] || !AWAKE(1));
    assert(!HOST_ENDED || ((ended[0] || !AWAKE(0)) && (ended[1] || !AWAKE(1))));
    assert(HOST_ENDED || EXCUSED(0) || EXCUSED(1) ||
           (ready > 0 && (!AWAKE(0) || !AWAKE(1))))
}

init
{
    atomic {
        run supervisor();
        run outsider();
        run store_buffer();
        run host();
        run worker(0);
        run worker(1);
        run judge()
    }
}
