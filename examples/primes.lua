-- Which of these are prime, and how many primes are there below five million?
-- usage: tidemill primes.lua [LIMIT]

local tidemill = require "tidemill"

local function is_prime(n)
  if n < 2 then return false end
  for d = 2, math.floor(math.sqrt(n)) do
    if n % d == 0 then return false end
  end
  return true
end

-- A function takes along what it uses: here `is_prime`.
local function count_primes(first, last)
  local count = 0
  for n = first, last do
    if is_prime(n) then count = count + 1 end
  end
  return count
end

local function seconds(f, ...)
  local from = tidemill.clock()
  local result = f(...)
  return tidemill.clock() - from, result
end

local limit = tonumber(arg[1]) or 5e6
local block = 10000

tidemill.with(function(pool)
  local numbers = { 2, 17, 23, 50, 97, 100, 7919, 1000003 }
  for i, prime in ipairs(pool:map(is_prime, numbers)) do
    print(("%8d %s"):format(numbers[i], prime and "is prime" or "is not prime"))
  end

  local blocks = {}
  for first = 1, limit - 1, block do
    blocks[#blocks + 1] = { first, math.min(first + block, limit) - 1 }
  end
  local function in_parallel()
    local total = 0
    for _, count in ipairs(pool:starmap(count_primes, blocks)) do total = total + count end
    return total
  end

  local parallel_time, parallel = seconds(in_parallel)
  print(("%d primes below %d with %d workers in %.2f s"):format(parallel, limit, pool.processes,
    parallel_time))
  local plain_time, plain = seconds(count_primes, 1, limit - 1)
  print(("%d primes in one process in %.2f s: %.2f times the time"):format(plain, plain_time,
    plain_time / parallel_time))
end)
