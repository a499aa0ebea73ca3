-- One line per measure: name, seconds. The counterpart of pool.py, which does the same.

local tidemill = require "tidemill"
local clock = tidemill.clock

local ROUNDS = 7

local function identity(x) return x end

local function is_prime(n)
  if n < 2 then return false end
  for d = 2, math.floor(math.sqrt(n)) do
    if n % d == 0 then return false end
  end
  return true
end

local function count_primes(first, last)
  local count = 0
  for n = first, last do
    if is_prime(n) then count = count + 1 end
  end
  return count
end

local function median(values)
  table.sort(values)
  return values[math.floor(#values / 2) + 1]
end

--- The median time of some rounds, by `count`.
local function measure(name, count, f)
  local times = {}
  for round = 1, ROUNDS do
    local from = clock()
    f()
    times[round] = (clock() - from) / count
  end
  print(("%s %.12f"):format(name, median(times)))
end

local function numbers(count)
  local items = {}
  for i = 1, count do items[i] = i end
  return items
end

measure("start_map_join", 1, function()
  local pool = tidemill.pool(2)
  pool:map(identity, { 1, 2 })
  pool:close()
  pool:join()
end)

tidemill.with(2, function(pool)
  local many, fewer = numbers(1e6), numbers(2e5)
  measure("map_default_chunks", #many, function() pool:map(identity, many) end)
  measure("map_chunk_1", #fewer, function() pool:map(identity, fewer, 1) end)

  measure("imap_unordered_chunk_1", #fewer, function()
    for _ in pool:imap_unordered(identity, fewer, 1) do end -- luacheck: ignore 542
  end)

  local calls, times = 20000, {}
  for i = 1, calls do
    local from = clock()
    pool:apply(identity, { i })
    times[i] = clock() - from
  end
  print(("apply_round_trip %.12f"):format(median(times)))
  print(("apply_round_trip_p99 %.12f"):format(times[math.floor(calls * 0.99)]))

  measure("async_bulk", 20000, function()
    local results = {}
    for i = 1, 20000 do results[i] = pool:apply_async(identity, { i }) end
    for i = 1, 20000 do results[i]:get() end
  end)

  -- In flight together, to the last of so many: each has to be found among the others.
  local function submit_anew(count)
    local results = {}
    for i = 1, count do results[i] = pool:submit(function() return i end) end
    for i = 1, count do results[i]:get() end
  end
  measure("function_anew", 1000, function() submit_anew(1000) end)
  measure("function_anew_of_30000", 30000, function() submit_anew(30000) end)

  local text = ("x"):rep(64 * 1024 * 1024)
  measure("string_64_mib", 1, function() pool:apply(string.len, { text }) end)

  local limit, block, blocks = 5e6, 10000, {}
  for first = 1, limit, block do blocks[#blocks + 1] = { first, first + block - 1 } end
  measure("cpu_plain", 1, function() count_primes(1, limit) end)
  measure("cpu_two_workers", 1, function() pool:starmap(count_primes, blocks) end)
end)
