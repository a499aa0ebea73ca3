--- Fault points, in builds that have them: see src/base/fault.h.

local core = require "tidemill.core"

local faults = { EPERM = 1, EINTR = 4, EAGAIN = 11, ENOMEM = 12, EINVAL = 22, ENFILE = 23,
  EMFILE = 24, EFBIG = 27, EPIPE = 32, exist = core.fault ~= nil }

local reached = {}

--- Let a point fire at its hit number `at`, once, or at every so many after it.
---@param name string
---@param action "die"|"stop"|integer  an errno is what a call fails with
---@param given? { at: integer?, every: integer?, role: string? }
function faults.set(name, action, given)
  given = given or {}
  core.fault(name, action, given.at, given.every, given.role)
end

--- How often a point has fired since it was set.
function faults.fired(name) return core.faults()[name] end

--- Set all off, and remember which have fired.
function faults.clear()
  for name, fired in pairs(core.faults()) do
    if fired > 0 then reached[name] = true end
    core.fault(name, nil)
  end
end

--- This point has fired, in a process of its own.
function faults.note(name) reached[name] = true end

--- Points that have never fired, in order.
function faults.unreached()
  local names = {}
  for name in pairs(core.faults()) do
    if not reached[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

return faults
