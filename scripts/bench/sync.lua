-- What processes share, beside Python's multiprocessing in sync.py: a line a measure, its name and
-- seconds for one.

local tidemill = require "tidemill"

local ROUNDS = 5

local function median(times)
  table.sort(times)
  return times[math.ceil(#times / 2)]
end

local function measure(name, count, f)
  local times = {}
  for round = 1, ROUNDS do
    local start = tidemill.clock()
    f()
    times[round] = (tidemill.clock() - start) / count
  end
  print(("%s %.12f"):format(name, median(times)))
end

--- Run `f(...)` in another process while this one calls `beside`.
local function with_process(f, args, beside)
  local process = tidemill.process(f, args)
  process:start()
  if beside then beside() end
  process:result()
end

measure("process_start_join", 20, function()
  for _ = 1, 20 do with_process(function() end) end
end)

local lock = tidemill.lock()
measure("lock_unlock", 1e6, function()
  for _ = 1, 1e6 do
    lock:acquire()
    lock:release()
  end
end)

local semaphore = tidemill.semaphore(1)
measure("semaphore_pair", 2e5, function()
  for _ = 1, 2e5 do
    semaphore:acquire()
    semaphore:release()
  end
end)

local queue = tidemill.queue()
measure("queue_item", 1e6, function()
  with_process(function(count)
    for i = 1, count do queue:put(i) end
  end, { 1e6 }, function()
    for _ = 1, 1e6 do queue:get() end
  end)
end)

local there, back = tidemill.queue(), tidemill.queue()
measure("queue_round_trip", 20000, function()
  with_process(function(count)
    for _ = 1, count do back:put(there:get()) end
  end, { 20000 }, function()
    for i = 1, 20000 do
      there:put(i)
      back:get()
    end
  end)
end)

local dict = tidemill.dict()
measure("dict_set", 2e5, function()
  for i = 1, 2e5 do dict:set("key", i) end
end)
measure("dict_get", 2e5, function()
  for _ = 1, 2e5 do dict:get "key" end
end)
measure("dict_new_key", 1e5, function()
  local fresh = tidemill.dict()
  for i = 1, 1e5 do fresh:set(i, i) end
end)

local barrier = tidemill.barrier(2)
measure("barrier_pass", 5000, function()
  with_process(function(count)
    for _ = 1, count do barrier:wait() end
  end, { 5000 }, function()
    for _ = 1, 5000 do barrier:wait() end
  end)
end)
