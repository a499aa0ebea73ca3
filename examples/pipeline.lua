-- A pipeline: one process produces, some work, one collects, with queues between them. The queues
-- have a capacity, so whoever is fast waits for whoever is slow, and nothing piles up.

local tidemill = require "tidemill"

local last, workers = 20000, tidemill.cpu_count()

--- The prime factors of n, in order: 12 is 2 * 2 * 3.
local function factorize(n)
  local factors, d = {}, 2
  while d * d <= n do
    while n % d == 0 do
      factors[#factors + 1] = d
      n = n / d
    end
    d = d + 1
  end
  if n > 1 then factors[#factors + 1] = n end
  return factors
end

local numbers, results = tidemill.queue(100), tidemill.queue(100)

local function produce()
  for n = 2, last do numbers:put(n) end
  numbers:close() -- the workers' loops end when the rest is taken
end

local function work()
  for _, n in numbers do results:put { n, factorize(n) } end
end

local all = { tidemill.process(produce) }
for _ = 1, workers do all[#all + 1] = tidemill.process(work) end
for _, process in ipairs(all) do process:start() end

-- This process collects. In which order results come depends on the workers; what they add up to
-- does not.
local by_count, most = {}, { 0, {} }
for _ = 2, last do
  local n, factors = unpack(results:get())
  by_count[#factors] = (by_count[#factors] or 0) + 1
  if #factors > #most[2] or #factors == #most[2] and n < most[1] then most = { n, factors } end
end
for _, process in ipairs(all) do process:result() end -- raises if one of them has failed

print(("%d primes up to %d"):format(by_count[1], last))
for count = 2, 4 do print(("%d numbers with %d prime factors"):format(by_count[count], count)) end
print(("%d is %s"):format(most[1], table.concat(most[2], " * ")))
