-- Random values: each comes back the same in structure, identity, and every bit.

local leaks = require "support.leaks"
local tidemill = require "tidemill"
local travel = require "support.travel"
local values = require "support.values"

local seed, there_and_back = travel.seed, travel.there_and_back

local PRELOAD = { "support.values" } -- declares a struct

local function identity(...) return ... end

describe("random values", function()
  leaks.watch(after_each, assert)

  for name, make in pairs { plain = values.random, rich = values.rich } do
    it(("come back isomorphic: %s ones"):format(name), function()
      local random = values.generator(seed)
      tidemill.with({ processes = 2, preload = PRELOAD }, function(pool)
        for round = 1, 500 do
          local value = { make(random, 5) }
          local where = ("TIDEMILL_SPEC_SEED=%d, round %d: "):format(seed, round)
          local same = values.compare(value, (there_and_back(value)))
          assert.is_true(same == true, where .. tostring(same))
          same = values.compare(value, (pool:apply(identity, { value })))
          assert.is_true(same == true, where .. tostring(same))
        end
      end)
    end)
  end

  it("come back so in every chunk size", function()
    local random = values.generator(seed + 1)
    local items = {}
    for i = 1, 300 do items[i] = values.rich(random, 3) end
    for _, workers in ipairs { 1, 2, 8 } do
      tidemill.with({ processes = workers, preload = PRELOAD }, function(pool)
        for _, chunk in ipairs { 1, 7, 1000 } do
          local results = pool:map(identity, items, chunk)
          for i = 1, 300 do
            local same = values.compare(items[i], results[i])
            assert.is_true(same == true, ("TIDEMILL_SPEC_SEED=%d, item %d: %s"):format(seed, i,
              tostring(same)))
          end
        end
      end)
    end
  end)
end)
