--- What the specs of travel/ share.

local assert = require "luassert"
local tidemill = require "tidemill"
local values = require "support.values"

local travel = {}

--- What random values begin with; each failure says it.
travel.seed = tonumber(os.getenv "TIDEMILL_SPEC_SEED") or os.time() % 1000000

local function identity(...) return ... end

function travel.there_and_back(...) return tidemill.decode(tidemill.encode(...)) end

--- The error of kind `kind` that f(...) raises.
function travel.raised(kind, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(tidemill.is_error(err), tostring(err))
  assert.equal(kind, err.kind)
  return err
end

function travel.assert_same(expected, value)
  local same = values.compare(expected, value)
  assert.is_true(same == true, same)
end

--- A script's chunk: its globals are _G's, not those of the test runner.
function travel.script(text) return assert(loadstring(text, "=job.lua"))() end

--- f(carry) with each way to carry values.
function travel.each_way(f)
  tidemill.with(1, function(pool)
    f(travel.there_and_back)
    f(function(...) return pool:apply(identity, { n = select("#", ...), ... }) end)
    f(function(value) return pool:map(identity, { value, value }, 2)[2] end)
  end)
end

return travel
