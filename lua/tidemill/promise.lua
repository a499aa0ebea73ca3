--- Promises: what a script holds of work that goes on without it. The C half fills one in when its
--- work is over, so that to ask it costs no call into C: see src/lua/promise.h. There may be a
--- million of them, so it is a short list and not a record. Nothing is at 1: for who takes it to be
--- the list of results, it is an empty one.

local promise = {
  -- Places in it.
  POOL = 0,     -- where every list has room
  JOB = 2,      -- userdata
  CALL = 3,     -- the call's index in the job; false: it is all of the job
  ENDED = 4,    -- when it was over; false till then
  COUNT = 5,    -- how many values there are; -1: it failed; false while the work goes on
  VALUE = 6,    -- the only value, or a table of all, or the error
  WATCHERS = 7, -- a list for when it is over; false for none
  TICKER = 8,   -- of a job whose progress is shown

  -- Places in a list of watchers; the functions to call follow.
  NEXT = 1,     -- the list to be called after it, or false

  -- Places in the chain of those lists; both are false if it is empty.
  FIRST = 1, LAST = 2,

  mt = { __name = "tidemill.Result" },
  process_mt = { __name = "tidemill.Process" }, -- what else can be waited for
}

---@class tidemill.Promise : any[]

--- Of a call, or of a job, that is about to be started.
---@param pool tidemill.Pool
---@return tidemill.Promise
function promise.new(pool)
  return setmetatable({ [0] = pool, nil, false, false, false, false, nil, false }, promise.mt)
end

---@return boolean
function promise.is(value)
  return getmetatable(value) == promise.mt
end

---@return boolean
function promise.is_process(value)
  return getmetatable(value) == promise.process_mt
end

return promise
