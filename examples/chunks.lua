-- How many items should a worker take at a time? With few, it comes for work too often; with many,
-- one worker is still busy when the others have nothing left. The default finds out by itself.

local tidemill = require "tidemill"

--- Something to do, `rounds` times.
local function work(rounds)
  local x = 1
  for _ = 1, rounds do x = (x * 16807) % 2147483647 end
  return x
end

-- Many small items that are all alike, and few of which the last are by far the largest.
local uniform, skewed = {}, {}
for i = 1, 100000 do uniform[i] = 100 end
for i = 1, 400 do skewed[i] = i <= 360 and 1000 or 150000 end

local function sum(values)
  local total = 0
  for _, value in ipairs(values) do total = total + value end
  return total
end

local function plain(items)
  local results = {}
  for i, item in ipairs(items) do results[i] = work(item) end
  return results
end

local function milliseconds(f, ...)
  local from = tidemill.clock()
  local results = f(...)
  return (tidemill.clock() - from) * 1000, results
end

tidemill.with(function(pool)
  pool:map(work, { 1, 1, 1, 1 }) -- workers that have the function, for fair times
  print(("%d workers, milliseconds:  uniform    skewed"):format(pool.processes))

  local expected = { sum(plain(uniform)), sum(plain(skewed)) }
  for _, size in ipairs { "adaptive", 1, 20, 400, 10000 } do
    local options = { chunksize = tonumber(size) } -- no number: the default
    local line = ("chunks of %-13s"):format(size)
    for i, items in ipairs { uniform, skewed } do
      local time, results = milliseconds(pool.map, pool, work, items, options)
      assert(sum(results) == expected[i]) -- whatever the chunks
      line = line .. ("%10.1f"):format(time)
    end
    print(line)
  end
  print(("one process %-11s%10.1f%10.1f"):format("", (milliseconds(plain, uniform)),
    (milliseconds(plain, skewed))))
  print "the same results every time"
end)
