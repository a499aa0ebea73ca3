--- Parallel compute scripted in Lua: pools of worker processes.

local check = require "tidemill.check"
local columns = require "tidemill.columns"
local core = require "tidemill.core"
local crew = require "tidemill.crew"
local errors = require "tidemill.errors"
local pool = require "tidemill.pool"
local process = require "tidemill.process"
local range = require "tidemill.range"
local waiting = require "tidemill.waiting"

local tidemill = { _VERSION = "Tidemill 0.1.0" }

core.configure { error = errors.mt, columns = columns, breathe = crew.attend }
-- While the process is small a supervisor costs little, and so does each worker after it. A worker
-- starts one only if it makes a pool of its own.
if not core.worker() then assert(core.start()) end

local function check_called_with_dot(where, first)
  if first == tidemill then check.fail(where, "call it with a dot", 3) end
end

--- Make a pool of worker processes.
---
--- Raises an error object of kind `"init"` if the initializer raises, `"broken"` if the workers
--- cannot be started.
---@param options? integer|tidemill.PoolOptions  how many workers, or options
---@return tidemill.Pool
function tidemill.pool(options, ...)
  check_called_with_dot("tidemill.pool", options)
  if select("#", ...) > 0 then
    check.fail("tidemill.pool", "give a number or options: processes goes among them", 2)
  end
  return (pool.new(options, "tidemill.pool")) -- no tail call: errors count levels
end

--- The command shows where an error was raised, not where it was raised again.
local function keep_trace(err)
  core.keep_trace(err, debug.traceback("", 2):sub(2))
  return err
end

--- Run `fn(pool)` with a new pool and return what it returns. When it returns, what is outstanding
--- is waited for; when it raises, the pool is terminated and the same error raised.
---@param options? integer|tidemill.PoolOptions  may be left out
---@param fn fun(pool: tidemill.Pool): any ...
---@return any ...
function tidemill.with(options, fn)
  check_called_with_dot("tidemill.with", options)
  if fn == nil then options, fn = nil, options end
  check.type("tidemill.with", "fn", fn, "function", 2)
  local made = pool.new(options, "tidemill.with")
  local function close(ok, ...)
    if not ok then
      made:terminate()
      error((...), 0)
    end
    made:close()
    made:join()
    return ...
  end
  return close(xpcall(fn, keep_trace, made))
end

--- A process for one call of a function, beside the script. It is to be started, and ends with the
--- script at the latest: `join` what is to come to its own end. Its standard input is empty.
---@param f string|function
---@param args? any[]  `n`, if set, says how many
---@param options? tidemill.ProcessOptions
---@return tidemill.Process
function tidemill.process(f, args, options)
  check_called_with_dot("tidemill.process", f)
  return (process.new(f, args, options, "tidemill.process"))
end

--- Wait for results, of one pool or of several, and for processes that were started until they have
--- ended.
---@param results (tidemill.Result|tidemill.Process)[]
---@param options? { timeout?: number, return_when?: "all"|"first"|"error" }
---@return (tidemill.Result|tidemill.Process)[] done     in order of completion
---@return (tidemill.Result|tidemill.Process)[] pending  in the order given
function tidemill.wait(results, options)
  return waiting.wait(results, options)
end

--- Results in order of completion: `for result in tidemill.as_completed(results) do`; a process
--- when it has ended. Each comes once. Raises kind `"timeout"` when that time has passed and not
--- all have come.
---@param results (tidemill.Result|tidemill.Process)[]
---@param timeout? number seconds for all of them; for ever when omitted
---@return fun(): tidemill.Result|tidemill.Process|nil
function tidemill.as_completed(results, timeout)
  return (waiting.as_completed(results, timeout))
end

--- Let values with this metatable keep their class across processes: what comes back has this very
--- metatable. Workers of pools made afterwards know it. A metatable that a module owns needs no
--- registering; others travel as part of the value.
---@param name string
---@param metatable table
function tidemill.register(name, metatable)
  check.type("tidemill.register", "name", name, "string", 2)
  check.type("tidemill.register", "metatable", metatable, "table", 2)
  if name == "" then check.fail("tidemill.register", "name must not be empty", 2) end
  core.register(name, metatable)
  crew.classes[name] = metatable
end

--- Processors this process may use: affinity and cgroup quota; at least 1.
---@return integer
function tidemill.cpu_count()
  return core.cpu_count()
end

--- The numbers first, first + step, ... last, of which only the bounds travel.
---@param first number
---@param last number
---@param step? number  1 when omitted
---@return tidemill.Range
function tidemill.range(first, last, step)
  check_called_with_dot("tidemill.range", first)
  return (range.new(first, last, step))
end

--- Seconds of the monotonic clock, the same in every process; for measuring.
---@return number
function tidemill.clock()
  return core.now()
end

--- One number, or struct, that every process sees.
---@param ctype string|ffi.ctype*  a number type, or a struct that has a name
---@param init? any  zero when omitted
---@return tidemill.Value
function tidemill.value(ctype, init)
  local value = require "tidemill.shared.value"
  return (value.new(ctype, init))
end

--- Many of them: `n` zeros, or the elements of a table.
---@param ctype string|ffi.ctype*
---@param n integer|any[]
---@return tidemill.Array
function tidemill.array(ctype, n)
  local array = require "tidemill.shared.array"
  return (array.new(ctype, n))
end

--- The same in rows and columns.
---@param ctype string|ffi.ctype*
---@param rows integer
---@param cols integer
---@return tidemill.Matrix
function tidemill.matrix(ctype, rows, cols)
  local array = require "tidemill.shared.array"
  return (array.matrix(ctype, rows, cols))
end

--- A lock that one process at a time has.
---@return tidemill.Lock
function tidemill.lock()
  return (require "tidemill.shared.lock".new(false))
end

--- A lock that its owner may acquire again.
---@return tidemill.Lock
function tidemill.rlock()
  return (require "tidemill.shared.lock".new(true))
end

--- A count that processes take from and give back to.
---@param n? integer  1 when omitted
---@return tidemill.Semaphore
function tidemill.semaphore(n)
  return (require "tidemill.shared.semaphore".new(n, false, "tidemill.semaphore"))
end

--- A semaphore that refuses to be released beyond its initial count.
---@param n? integer  1 when omitted
---@return tidemill.Semaphore
function tidemill.bounded_semaphore(n)
  return (require "tidemill.shared.semaphore".new(n, true, "tidemill.bounded_semaphore"))
end

--- A flag to wait for.
---@return tidemill.Event
function tidemill.event()
  return (require "tidemill.shared.event".new())
end

--- A lock, and a way to wait for what others change under it.
---@param lock? tidemill.Lock  a new rlock when omitted
---@return tidemill.Condition
function tidemill.condition(lock)
  return (require "tidemill.shared.condition".new(lock))
end

--- A place where `parties` processes wait until all are there.
---@param parties integer
---@param action? function  called by the last one that comes, before all go on
---@param timeout? number   seconds that a wait may take
---@return tidemill.Barrier
function tidemill.barrier(parties, action, timeout)
  return (require "tidemill.shared.barrier".new(parties, action, timeout))
end

--- A queue of values, from any process to any process.
---@param capacity? integer  values; without bound when omitted
---@return tidemill.Queue
function tidemill.queue(capacity)
  return (require "tidemill.shared.queue".new(capacity))
end

--- A dictionary that every process sees: keys are strings, numbers and booleans.
---@return tidemill.Dict
function tidemill.dict()
  return (require "tidemill.shared.dict".new())
end

--- Is `value` one of Tidemill's error objects?
---@param value any
---@return boolean
function tidemill.is_error(value)
  return errors.is_error(value)
end

--- Which worker this is.
---@return { id: integer, pid: integer, pool: string }?  nil outside a worker
function tidemill.worker()
  local id, pid, name = core.worker()
  return id and { id = id, pid = pid, pool = name } or nil
end

--- Values as bytes, in the codec that work travels in; the first says the version of the format.
--- Raises kind `"encode"`.
---@param ... any
---@return string
function tidemill.encode(...)
  return core.encode(...)
end

--- The values in such bytes. Bytecode in them is loaded: decode only what you trust.
--- Raises kind `"decode"`, also for those of another version.
---@param bytes string
---@return any ...
function tidemill.decode(bytes)
  return core.decode(bytes)
end

return tidemill
