--- Lazy sequences of numbers: only their bounds travel.

local check = require "tidemill.check"

local range = {}

local EXACT = 2 ^ 53 -- whole numbers up to here are exact

---@class tidemill.Range
---@field first number
---@field last number
---@field step number
---@field count integer  how many numbers there are
local Range_mt = { __name = "tidemill.Range" }
range.mt = Range_mt

function Range_mt.__tostring(self)
  return ("range(%.14g, %.14g, %.14g)"):format(self.first, self.last, self.step)
end

local function check_bound(name, value)
  if type(value) ~= "number" or value ~= value or math.abs(value) == math.huge then
    check.fail("tidemill.range", ("%s must be a finite number, got %s"):format(name,
      check.describe(value)), 4)
  end
end

--- The numbers first, first + step, ... up to and including last, as a `for` loop counts them.
---@param first number
---@param last number
---@param step? number  1 when omitted
---@return tidemill.Range
function range.new(first, last, step)
  step = step or 1
  check_bound("first", first)
  check_bound("last", last)
  check_bound("step", step)
  if step == 0 then check.fail("tidemill.range", "step must not be 0", 3) end
  local count = math.max(0, math.floor((last - first) / step) + 1)
  if count > EXACT then check.fail("tidemill.range", "more than 2^53 numbers", 3) end
  return setmetatable({ first = first, last = last, step = step, count = count }, Range_mt)
end

---@param value any
---@return boolean
function range.is_range(value)
  return getmetatable(value) == Range_mt
end

return range
