--- Conditions: a lock, and a way to wait for what others change under it.

local check = require "tidemill.check"
local core = require "tidemill.core"
local lock = require "tidemill.shared.lock"
local plain = require "tidemill.shared.plain"
local shared = require "tidemill.shared"

local condition = {}

local ALL = 2 ^ 31 - 1

---@class tidemill.Condition
local Condition = {}

local make, check_self = plain.define("condition", Condition, {
  __tostring = function(self)
    return ("tidemill.Condition (%s)"):format(tostring(condition.lock_of(self)))
  end,
})

local locks = setmetatable({}, { __mode = "k" }) -- by condition: they live as long as that

--- The lock of a condition.
---@return tidemill.Lock
function condition.lock_of(self)
  local its = locks[self]
  if not its then
    local place, generation = core.condition_lock(self)
    its = shared.find(place, generation)
    if its then shared.drop(place, generation) else its = lock.open(place, generation) end
    locks[self] = its
  end
  return its
end

local function check_has_lock(self, method)
  check_self(self, method)
  local its = condition.lock_of(self)
  if not core.lock_is_ours(its) then
    error(("condition:%s: acquire it first"):format(method), 3)
  end
  return its
end

--- Acquire its lock; see `lock:acquire`.
function Condition:acquire(timeout)
  check_self(self, "acquire")
  return condition.lock_of(self):acquire(timeout)
end

--- Release its lock.
function Condition:release()
  check_self(self, "release")
  if not pcall(condition.lock_of(self).release, condition.lock_of(self)) then
    error("condition:release: this process does not have it", 2)
  end
end

--- Call `fn` with its lock held; see `lock:with`.
function Condition:with(fn)
  check_self(self, "with")
  check.type("condition:with", "fn", fn, "function", 2)
  return condition.lock_of(self):with(fn)
end

local function wait(self, its, timeout)
  local status, abandoned = core.condition_wait(self, its, timeout)
  return plain.outcome(status, "condition:wait", "notify"), abandoned and "abandoned" or nil
end

--- Release the lock, wait to be notified, and acquire it again.
---@param timeout? number seconds; for ever when omitted
---@return boolean notified  false when the time is over
---@return "abandoned"? state  as of `lock:acquire`
function Condition:wait(timeout)
  local its = check_has_lock(self, "wait")
  return wait(self, its, plain.patience("condition:wait", timeout))
end

--- Wait until `predicate()`, which is called with the lock held, is true; returns what it returns
--- then, or when the time is over.
---@param predicate fun(): any
---@param timeout? number seconds; for ever when omitted
---@return any
function Condition:wait_for(predicate, timeout)
  local its = check_has_lock(self, "wait_for")
  check.type("condition:wait_for", "predicate", predicate, "function", 2)
  timeout = plain.patience("condition:wait_for", timeout)
  local deadline = timeout and core.now() + timeout
  local met = predicate()
  while not met do
    local left = deadline and deadline - core.now()
    if left and left <= 0 then break end
    wait(self, its, left)
    met = predicate()
  end
  return met
end

--- Wake those who have waited longest.
---@param n? integer  how many; 1 when omitted
function Condition:notify(n)
  check_has_lock(self, "notify")
  if n ~= nil then check.count("condition:notify", "n", n, 1, 2) end
  core.condition_notify(self, n or 1)
end

--- Wake all who wait.
function Condition:notify_all()
  check_has_lock(self, "notify_all")
  core.condition_notify(self, ALL)
end

function condition.open(place, generation) return make(place, generation) end

---@param its? tidemill.Lock  a new rlock when omitted
---@return tidemill.Condition
function condition.new(its)
  if its ~= nil and not lock.is_lock(its) then
    check.fail("tidemill.condition", "lock must be a lock, got " .. check.describe(its), 3)
  end
  its = its or lock.new(true)
  local made = make(core.condition_make(its))
  locks[made] = its
  return made
end

return condition
