/*
 * The arrest of a worker whose item is overdue (watch.c): SIGSTOP, a second look
 * when it stands still, SIGKILL or SIGCONT. A worker goes through its items and
 * hangs in the last one, or in one before; an outsider sends SIGSTOP and SIGCONT
 * at any time.
 *
 * The supervisor does one thing at a time, as its loop does. Signals are taken
 * some time after they are sent; SIGCONT takes back a SIGSTOP that was not taken
 * yet and the report of a stop that was not read yet, as the kernel does. That
 * time has passed may be found at any look at an item that was noted before.
 *
 *   item        flight and item in hand, as one number; 0 before the first
 *   noted, overdue    tide_watch.item, and that its time has passed
 *   cut         tide_watch.cut: the host wants this one ended; 0: none
 *   arrest      enum tide_arrest
 *
 * Proved: who is killed had in hand what it was to die for, unless somebody else
 * sent SIGCONT meanwhile or patience was at its end, and then the death is not
 * called by that name; nobody is left stopped who is not held by somebody else;
 * and (`ends`) a worker that hangs in an item with a limit dies.
 *
 * sound: ITEMS=3
 * sound: ITEMS=2 LTL=ends
 * sound: ITEMS=2 LTL=freed
 * broken: AT_A_GLANCE
 * broken: UNHEARD
 * broken: CAUSE_BLIND
 * broken: HELD_FOREVER ITEMS=2 LTL=ends
 * broken: NEVER_LET_GO ITEMS=2 LTL=freed
 * large: ITEMS=4 SIGNALS=3
 */
#ifndef ITEMS
#define ITEMS 3
#endif
#ifndef SIGNALS
#define SIGNALS 2
#endif

#define AT_LARGE 0
#define CALLED   1
#define HELD     2
#define KILLED   3

byte item;
byte noted, cut, arrest;
bit overdue, excused;

bit stop_sent, kill_sent, stopped, dead, reaped;
bit stop_report, continue_report;
bit theirs; /* stopped by the outsider last */
bit hangs;

#define GUILTY ((noted != 0 && item == noted && overdue) || \
                (cut != 0 && item == cut))

proctype worker() provided (!stopped && !dead)
{
end_work:
    do
    :: item < ITEMS -> item++
    :: item > 0 -> hangs = 1; break
    od
}

/* ---- signals ---- */

inline send_stop()
{
    stop_sent = 1
}

inline send_continue()
{
    d_step {
        stop_sent = 0;
        if
        :: stopped -> stopped = 0; continue_report = 1; stop_report = 0
        :: else
        fi;
        theirs = 0
    }
}

proctype kernel()
{
end_idle:
    do
    :: d_step { stop_sent && !stopped && !dead ->
            stop_sent = 0; stopped = 1; stop_report = 1; continue_report = 0 }
    :: d_step { kill_sent && !dead ->
            dead = 1; stopped = 0; stop_report = 0; continue_report = 0 }
    od
}

proctype outsider()
{
    byte signals = SIGNALS;
end_idle:
    do
    :: signals > 0 && !dead ->
        signals--;
        if
        :: d_step { send_stop(); theirs = 1 }
        :: atomic { excused = 1; send_continue() }
        fi
    od
}

/* ---- supervisor ---- */

inline execute()
{
    kill_sent = 1;
    arrest = KILLED;
    verdict = 1
}

inline let_go()
{
    cut = 0;
#ifndef NEVER_LET_GO
    if
    :: arrest == CALLED -> arrest = AT_LARGE; send_continue()
    :: else
    fi
#else
    if
    :: arrest == CALLED -> arrest = AT_LARGE
    :: else
    fi
#endif
}

inline pursue()
{
    if
#ifdef AT_A_GLANCE
    :: arrest == AT_LARGE -> execute()
#else
    :: arrest == AT_LARGE -> arrest = CALLED; send_stop()
#endif
    :: arrest == CALLED ->
        if
        :: send_stop()
        :: excused = 1; execute() /* patience is at its end */
        fi
#ifdef HELD_FOREVER
    :: arrest == HELD -> skip
#else
    :: arrest == HELD -> execute()
#endif
    :: arrest == KILLED -> skip
    fi
}

inline look()
{
    d_step { /* note_item(): the item is read once */
        again = (item == noted);
        overdue = (again && overdue);
        noted = item
    }
    if /* time passes, at last in an item that hangs */
    :: noted != 0 && again -> overdue = 1
    :: noted == 0 || !again || !hangs
    fi;
    if
    :: GUILTY -> guilty = 1 /* judge() */
    :: else -> guilty = 0
    fi;
    if
    :: guilty -> pursue()
    :: else -> let_go()
    fi;
    guilty = 0;
    again = 0
}

proctype supervisor()
{
    bit guilty, again, verdict, cuts = 1;
    do
    :: dead -> break
    :: !dead && stop_report ->
        stop_report = 0; /* waitpid(2) */
        if
        :: arrest == AT_LARGE -> arrest = HELD
        :: arrest == CALLED -> /* tide_watch_on_stop() */
            if
#ifdef UNHEARD
            :: true -> execute()
#else
            :: GUILTY -> execute()
            :: else -> let_go()
#endif
            fi
        :: else
        fi
    :: !dead && continue_report ->
        continue_report = 0;
        if
        :: arrest == HELD -> arrest = AT_LARGE
        :: else
        fi
    :: !dead && !stop_report && !continue_report -> look()
    :: !dead && cuts && item > 0 -> cut = item; cuts = 0
    od;
    /* tide_watch_cause(), when it is reaped */
    assert(!verdict || GUILTY || excused);
#ifdef CAUSE_BLIND
    assert(!verdict || GUILTY);
#endif
    reaped = 1
}

/* Who stands still is held by somebody else, or about to be judged. */
#define FORGOTTEN (stopped && !theirs && !stop_report && arrest == AT_LARGE)

ltl ends { [](hangs -> <> reaped) }
ltl freed { [](FORGOTTEN -> <> !FORGOTTEN) }

init
{
    atomic {
        run supervisor();
        run kernel();
        run outsider();
        run worker()
    }
}
