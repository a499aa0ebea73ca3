-- Adaptive chunks against every chunk size one might choose by hand: even work, and skewed work in
-- which one item in fifty is a hundred times dearer. Medians of interleaved rounds, and each as a
-- ratio to the best of those chosen by hand.

local tidemill = require "tidemill"
local clock = tidemill.clock

local ROUNDS = 11
local SIZES = { 1, 2, 5, 10, 20, 50, 100, 200, 500 }

local function spin(seconds)
  local till = clock() + seconds
  while clock() < till do end
  return true
end

local function even(count, seconds)
  local items = {}
  for i = 1, count do items[i] = seconds end
  return items
end

local function skewed(count, seconds)
  local items = even(count, seconds)
  for i = 25, count, 50 do items[i] = 100 * seconds end
  return items
end

local CASES = {
  { "even, 1000 x 100 us", even(1000, 100e-6) },
  { "even, 20000 x 5 us", even(20000, 5e-6) },
  { "skewed, 1000 x 50 us", skewed(1000, 50e-6) },
  { "skewed, 1000 x 5 us", skewed(1000, 5e-6) },
}

local function median(times)
  table.sort(times)
  return times[math.ceil(#times / 2)]
end

local function measure(pool, items)
  local times = { adaptive = {} }
  for _, size in ipairs(SIZES) do times[size] = {} end
  for _ = 1, ROUNDS do
    for size, list in pairs(times) do
      local from = clock()
      pool:map(spin, items, size ~= "adaptive" and size or nil)
      list[#list + 1] = clock() - from
    end
  end
  for size, list in pairs(times) do times[size] = median(list) end
  return times
end

tidemill.with(2, function(pool)
  for _, case in ipairs(CASES) do
    local times = measure(pool, case[2])
    local best, best_size = math.huge, nil
    for _, size in ipairs(SIZES) do
      if times[size] < best then best, best_size = times[size], size end
    end
    print(("%-22s adaptive %7.2f ms, best by hand %7.2f ms (chunks of %d): ratio %.3f"):format(
      case[1], times.adaptive * 1e3, best * 1e3, best_size, times.adaptive / best))
  end
end)
