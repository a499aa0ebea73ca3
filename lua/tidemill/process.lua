--- Processes that run one function each, beside the script: as in Python's multiprocessing.
---
--- One is a pool of a single worker that runs a single job and is not replaced. Those that were
--- started are held here until they have ended: to drop one does not end it; the script's end does.

local check = require "tidemill.check"
local core = require "tidemill.core"
local crew = require "tidemill.crew"
local errors = require "tidemill.errors"
local functions = require "tidemill.functions"
local options = require "tidemill.options"
local promise = require "tidemill.promise"
local result = require "tidemill.result"
local waiting = require "tidemill.waiting"

local process = {}

local SIGKILL, SIGTERM = 9, 15
local JOB, CALL, COUNT, VALUE = promise.JOB, promise.CALL, promise.COUNT, promise.VALUE

---@class tidemill.Process
---@field name string
---@field pid? integer       once it was started
---@field exitcode? integer  nil while it runs; 0 when the function returned, 1 when it raised, n of
---                           os.exit(n), -n when signal n killed it
---@field _call? { f: function, args: any[], given: tidemill.ProcessOptions }  until it is started
---@field _pool? { _core: userdata, _watch: tidemill.Watch }                   from then on
---@field _answer? tidemill.Result   of its call
---@field _code? integer
---@field _ended? number             when it had ended, as promise.ENDED
---@field _failure? tidemill.Error  why there is no result, where the job cannot say so
local Process = {}
local Process_mt = promise.process_mt

local running = {} ---@type table<tidemill.Process, true>
local count = 0 -- of those that were named here

-- ---- their end ----

--- Why a process that ended without a word of its job has no result.
local function failure_of(self, handle, code)
  local raised = core.start_failure(handle)
  if raised then
    raised.kind = "init"
    return errors.new(raised)
  end
  local state, reason = core.state(handle)
  if state == "broken" then
    return errors.new { kind = "broken", message = "the process is lost: " .. reason }
  end
  local how = code < 0 and "was killed by signal %d" or "ended with exit code %d"
  return errors.new {
    kind = "worker", pid = self.pid, signal = code < 0 and -code or nil,
    exitcode = code >= 0 and code or nil,
    message = ("process '%s' (pid %d) " .. how):format(self.name, self.pid, math.abs(code)),
  }
end

--- The exit code of a process, if it has ended: then it leaves nothing but its result.
---@param self tidemill.Process
---@return integer? code
local function look(self)
  local handle = not self._code and self._pool and self._pool._core
  if not handle then return self._code end
  core.step(handle) -- if it has ended, its answer is in
  local _, code, ended = core.ending(handle)
  if not code then return nil end
  self._failure = failure_of(self, handle, code)
  self._code, self._ended = code, ended
  running[self] = nil
  core.release(handle)
  return code
end

--- Forget those that have ended; and, in a forked copy of the script, those that are not its own.
local function sweep()
  for started in pairs(running) do
    if not pcall(look, started) then running[started] = nil end
  end
end

-- ---- making and starting ----

--- See `tidemill.process`.
---@param f string|function
---@param args? any[]
---@param given? tidemill.ProcessOptions
---@param where string  the function to name in errors
---@return tidemill.Process
function process.new(f, args, given, where)
  local resolved, problem = functions.resolve(f)
  if not resolved then check.fail(where, "f: " .. problem, 3) end
  check.type(where, "args", args, "table/nil", 3)
  local normal = options.for_process(given, where, 3)
  if not normal.name then
    count = count + 1
    normal.name = "process-" .. count
  end
  return setmetatable({
    name = normal.name, _call = { f = resolved, args = args or {}, given = normal },
  }, Process_mt)
end

local function check_self(self, method)
  if getmetatable(self) ~= Process_mt then
    check.fail("process:" .. method, "call it with a colon", 3)
  end
end

local function check_started(self, method)
  check_self(self, method)
  if not self._pool then error(("process:%s: start it first"):format(method), 3) end
end

--- Start the call. What cannot travel raises.
---@return tidemill.Result
local function submit(pool, call)
  local answer = result.new(pool, {})
  answer[JOB], answer[CALL] = core.apply(pool._core, answer, call.f, nil, nil, nil, call.args,
    call.args.n or #call.args)
  if answer[COUNT] == -1 and answer[VALUE].kind == "encode" then error(answer[VALUE], 0) end
  return answer
end

--- Start the process; once only. The function and its arguments are copied now.
---
--- Raises an error object of kind `"encode"` if they cannot travel, `"broken"` if there cannot be
--- another process.
function Process:start()
  check_self(self, "start")
  local call = self._call
  if not call then error("process:start: it was started before", 2) end
  sweep()
  local handle, hidden = crew.start(call.given, "process:start", 2, "process")
  crew.hide(hidden)
  local pool = { _core = handle, _watch = waiting.new_watch(handle) }
  local ok, answer = pcall(submit, pool, call)
  if not ok then
    core.kill(handle)
    core.release(handle)
    error(answer, 0)
  end
  self._call = nil
  self.pid = core.ending(handle)
  self._pool, self._answer = pool, answer
  running[self] = true
end

-- ---- from then on ----

local function await(self, timeout)
  local deadline = timeout and core.now() + timeout
  while not look(self) do
    core.join(self._pool._core, waiting.remaining(deadline))
    if deadline and core.now() >= deadline then return look(self) ~= nil end
  end
  return true
end

--- Wait until the process has ended.
---@param timeout? number seconds; for ever when omitted
---@return boolean ended
function Process:join(timeout)
  check_started(self, "join")
  check.timeout("process:join", timeout, 2)
  return await(self, timeout)
end

--- Was it started, and has not ended?
---@return boolean
function Process:is_alive()
  check_self(self, "is_alive")
  return self._pool ~= nil and look(self) == nil
end

-- ---- as a result ----

--- What became of the call; not kept back if the process takes longer to end than `timeout`
--- allows.
---@return boolean ok
---@return any ...  all that the function returned, or an error object
local function conclude(self, timeout)
  local answer = self._answer
  local deadline = timeout and core.now() + timeout
  if not answer:wait(timeout) then
    return false, errors.new { kind = "timeout", message = ("no result in %g s"):format(timeout) }
  end
  await(self, deadline and math.max(0, deadline - core.now()))
  local err = answer[COUNT] == -1 and answer[VALUE]
  if err and (err.kind == "worker" or err.kind == "broken") then
    await(self)
    return false, self._failure
  end
  return answer:try()
end

local function raise_failure(ok, ...)
  if ok then return ... end
  error((...), 0)
end

--- Wait until the process has ended, and return all that its function returned. (What was
--- returned is not kept back where the process takes longer to end than `timeout` allows.)
---
--- Raises the error object of what the function raised; of kind `"worker"` if the process ended
--- before the function did; `"timeout"`. May be called again.
---@param timeout? number seconds; for ever when omitted
---@return any ...
function Process:result(timeout)
  check_started(self, "result")
  check.timeout("process:result", timeout, 2)
  return raise_failure(conclude(self, timeout))
end

--- The same, by the name that it has for a Result; so are those that follow.
---@param timeout? number seconds; for ever when omitted
---@return any ...
function Process:get(timeout)
  check_started(self, "get")
  check.timeout("process:get", timeout, 2)
  return raise_failure(conclude(self, timeout))
end

--- The same without raising.
---@param timeout? number seconds; for ever when omitted
---@return boolean ok
---@return any ...  the results, or the error object
function Process:try(timeout)
  check_started(self, "try")
  check.timeout("process:try", timeout, 2)
  return conclude(self, timeout)
end

--- `join`, by the name that it has for a Result.
---@param timeout? number seconds; for ever when omitted
---@return boolean ended
function Process:wait(timeout)
  check_started(self, "wait")
  check.timeout("process:wait", timeout, 2)
  return await(self, timeout)
end

--- Has it ended, well or badly? Never waits.
---@return boolean
function Process:ready()
  check_started(self, "ready")
  return look(self) ~= nil
end

-- ---- signals ----

local function send(self, signal)
  if not look(self) then core.signal(self._pool._core, signal) end
end

--- End the process by SIGTERM. It may not have ended yet when this returns: `join`.
function Process:terminate()
  check_started(self, "terminate")
  send(self, SIGTERM)
end

--- End the process by SIGKILL.
function Process:kill()
  check_started(self, "kill")
  send(self, SIGKILL)
end

function Process_mt.__index(self, key)
  if key == "exitcode" then return look(self) end
  return Process[key]
end

function Process_mt.__tostring(self)
  local code = look(self)
  local state = not self._pool and "not started" or code and "exit code " .. code or "running"
  return ("tidemill.Process '%s' (%s)"):format(self.name, state)
end

return process
