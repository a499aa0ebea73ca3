-- Pi by throwing darts. With a `seed` every item has random numbers of its own, so that the figure
-- is the same whatever the number of workers and the size of the chunks.
-- usage: tidemill montecarlo.lua [SEED]

local tidemill = require "tidemill"

local throws = 100000

--- Of `throws` darts at a square, how many hit the disc in it.
local function hits()
  local count = 0
  for _ = 1, throws do
    local x, y = math.random(), math.random()
    if x * x + y * y < 1 then count = count + 1 end
  end
  return count
end

local function add(a, b) return a + b end

local seed, rounds = tonumber(arg[1]) or 1889, 64

--- An estimate of pi, by this many workers and chunks of this size.
local function estimate(workers, chunksize)
  return tidemill.with({ processes = workers, seed = seed, chunksize = chunksize }, function(pool)
    return 4 * pool:mapreduce(hits, add, tidemill.range(1, rounds), 0) / (rounds * throws)
  end)
end

local first
for _, workers in ipairs { 1, 2, 4 } do
  for _, chunksize in ipairs { 1, 7 } do
    local pi = estimate(workers, chunksize)
    first = first or pi
    assert(pi == first, "the figure depends on who computes it")
    assert(math.abs(pi - math.pi) < 0.005, "the darts are loaded")
    print(("%d workers, chunks of %d: pi is about %.7f"):format(workers, chunksize, pi))
  end
end
