--- Events: a flag to wait for.

local core = require "tidemill.core"
local plain = require "tidemill.shared.plain"

local event = {}

---@class tidemill.Event
local Event = {}

local make, check_self = plain.define("event", Event, {
  __tostring = function(self)
    return ("tidemill.Event (%s)"):format(core.event_is_set(self) and "set" or "clear")
  end,
})

--- Set the flag and wake all who wait for it.
function Event:set()
  check_self(self, "set")
  core.event_set(self, true)
end

--- Clear the flag.
function Event:clear()
  check_self(self, "clear")
  core.event_set(self, false)
end

---@return boolean
function Event:is_set()
  check_self(self, "is_set")
  return core.event_is_set(self)
end

--- Wait until the flag is set. Who waited when it was set is told so, also if it was cleared since.
---@param timeout? number seconds; for ever when omitted
---@return boolean set  false when the time is over
function Event:wait(timeout)
  check_self(self, "wait")
  timeout = plain.patience("event:wait", timeout)
  return core.event_is_set(self)
    or plain.outcome(core.event_wait(self, timeout), "event:wait", "set it")
end

function event.open(place, generation) return make(place, generation) end

---@return tidemill.Event
function event.new() return (make(core.event_make())) end

return event
