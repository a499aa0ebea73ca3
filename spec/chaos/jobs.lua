--- The jobs of a round, one function each, and the check of every result.

local system = require "chaos.system"
local tidemill = require "tidemill"
local work = require "chaos.work"

local jobs = {}

local PATIENCE_S = 30

local deadly = {}
for _, signal in ipairs(system.deadly) do deadly[signal] = true end

---@class chaos.Round
---@field random fun(limit: integer): integer
---@field batch chaos.Batch
---@field pool tidemill.Pool
---@field path string      of the ledger
---@field next_id integer
---@field lost integer     items that died with their worker

local function show(value)
  local text = tostring(value)
  return #text > 60 and text:sub(1, 60) .. "..." or text
end

--- What must not be: it ends the round, and all of chaos.
local function wrong(format, ...)
  error({ chaos = format:format(...) }, 0)
end

--- A task and options for it, and ids of items.
local function invent(round, count)
  local random = round.random
  local task = { path = round.path, kind = work.kinds[random(#work.kinds)],
    size = random(4) == 1 and 50000 or 10 * random(300), naps = random(3) == 1,
    raises = random(4) == 1, flaky = random(6) == 1, endless = random(8) == 1 }
  local options = { errors = "collect", chunksize = random(3) > 1 and random(20) or nil,
    retries = random(4) == 1 and random(3) or nil }
  if task.flaky then options.retry_errors = 1 end
  if task.endless or random(8) == 1 then options.timeout = 0.05 + random(20) / 100 end
  if task.kind == "large" and task.size > 10000 then count = math.min(count, 40) end
  local first = round.next_id
  round.next_id = first + count
  return task, options, first, count
end

local function function_of(task)
  return function(id) return require "chaos.work".run(task, id) end
end

--- May this error have come of what the batch suffers?
local function check_error(round, task, options, id, err)
  local kind = err.kind
  if kind == "worker" then
    round.lost = round.lost + 1
    if not deadly[err.signal] and not round.batch.allow.task then
      wrong("item %d: its worker died otherwise: %s", id, tostring(err))
    end
  end
  if kind == "task" and work.raises(task, id) and err.value and err.value.id == id then return end
  if kind == "timeout" and options.timeout then return end
  if not round.batch.allow[kind] then wrong("item %d: %s: %s", id, kind, tostring(err)) end
end

local function check_begun(round, options, id, least)
  local begun = work.ledger(round.path)[id]
  local most = 1 + (options.retries or 0) + (options.retry_errors or 0)
  if options.folds then most = math.huge end -- the work of a dead worker is done again
  if begun > most then wrong("item %d was begun %d times, of %d", id, begun, most) end
  if begun < least then wrong("item %d was never begun", id) end
end

--- Check one result.
local function check(round, task, options, id, value)
  if tidemill.is_error(value) then
    check_begun(round, options, id, 0)
    return check_error(round, task, options, id, value)
  end
  check_begun(round, options, id, 1)
  if work.raises(task, id) or work.is_endless(task, id) then
    wrong("item %d has a result: %s", id, show(value))
  end
  if not work.is_same(value, work.value(task, id)) then
    wrong("item %d: %s", id, show(value))
  end
end

local function check_list(round, task, options, first, count, results)
  for i = 1, count do check(round, task, options, first + i - 1, results[i]) end
end

-- ---- the jobs ----

local function ids_of(round, first, count)
  if round.random(2) == 1 then return tidemill.range(first, first + count - 1) end
  local ids = {}
  for i = 1, count do ids[i] = first + i - 1 end
  return ids
end

function jobs.map(round)
  local task, options, first, count = invent(round, round.random(300))
  options.progress = round.random(3) == 1 and function() end or nil
  local results = round.pool:map(function_of(task), ids_of(round, first, count), options)
  check_list(round, task, options, first, count, results)
end

function jobs.starmap(round)
  local task, options, first, count = invent(round, round.random(100))
  local items = {}
  for i = 1, count do items[i] = { task, first + i - 1 } end
  local results = round.pool:starmap("chaos.work:run", items, options)
  check_list(round, task, options, first, count, results)
end

--- Large arguments fill the arena.
function jobs.large(round)
  local task, options, first, count = invent(round, 5 + round.random(20))
  local ballast = ("x"):rep(2 ^ (10 + round.random(12)))
  local items = {}
  for i = 1, count do items[i] = { first + i - 1, ballast .. i } end
  local results = round.pool:starmap(function(id, text)
    local value = require "chaos.work".run(task, id)
    return #text > 0 and value
  end, items, options)
  check_list(round, task, options, first, count, results)
end

--- A stream, taken to its end or left, slowly or fast.
function jobs.stream(round)
  local random = round.random
  local task, options, first, count = invent(round, random(300))
  options.buffer = random(2) == 1 and random(50) or nil
  local fed = 0
  local function feed()
    fed = fed + 1
    if fed <= count then return first + fed - 1 end
  end
  local method = random(2) == 1 and "imap" or "imap_unordered"
  local stream = round.pool[method](round.pool, function_of(task), feed, options)
  local seen, last = {}, random(4) == 1 and random(count) or nil
  for place, value, err in stream do
    if seen[place] then wrong("place %d comes twice", place) end
    if method == "imap" and place ~= #seen + 1 then wrong("place %d is out of order", place) end
    seen[place] = true
    if err ~= nil then value = err end
    check(round, task, options, first + place - 1, value)
    if random(40) == 1 then collectgarbage "step" end
    if place == last then break end
  end
  if not last and #seen ~= count then wrong("%d of %d results came", #seen, count) end
  if random(2) == 1 then stream:close() end
  for i = 1, count do check_begun(round, options, first + i - 1, 0) end
end

--- Many single tasks, some cancelled.
function jobs.single(round)
  local random = round.random
  local task, options, first, count = invent(round, random(80))
  options.errors, options.chunksize = nil, nil
  local results, cancelled = {}, {}
  local called = 0
  options.callback = function() called = called + 1 end
  options.error_callback = options.callback
  for i = 1, count do
    results[i] = round.pool:apply_async("chaos.work:run", { task, first + i - 1 }, options)
    if random(10) == 1 then
      local at = random(i)
      cancelled[at] = results[at]:cancel() or cancelled[at]
    end
  end
  for _, result in ipairs(results) do result:wait() end
  for i, result in ipairs(results) do
    local ok, value = result:try()
    if not ok and value.kind == "cancelled" then
      if not cancelled[i] then wrong("item %d was cancelled unasked", first + i - 1) end
      check_begun(round, options, first + i - 1, 0)
    else
      check(round, task, options, first + i - 1, value)
    end
  end
end

function jobs.reduce(round)
  local task, options, first, count = invent(round, round.random(200))
  task.kind, task.raises, task.endless, options.errors = "number", nil, nil, nil
  if task.flaky then options.retry_errors = 1 end
  local ok, sum = pcall(round.pool.mapreduce, round.pool, function_of(task),
    function(a, b) return a + b end, ids_of(round, first, count), 0, options)
  if not ok then
    if not tidemill.is_error(sum) then error(sum, 0) end
    return check_error(round, task, options, first, sum)
  end
  local expected = 0
  for id = first, first + count - 1 do expected = expected + work.value(task, id) end
  if sum ~= expected then wrong("the sum is %s, not %s", show(sum), show(expected)) end
  for id = first, first + count - 1 do check_begun(round, { folds = true }, id, 1) end
end

function jobs.broadcast(round)
  local ok, results = pcall(round.pool.broadcast, round.pool, function(x) return x + 1 end, 41)
  if not ok then
    if not tidemill.is_error(results) then error(results, 0) end
    return check_error(round, {}, {}, 0, results)
  end
  for i = 1, round.pool.processes do
    if results[i] ~= 42 then wrong("worker %d answers %s", i, show(results[i])) end
  end
end

--- Sizes change under a map.
function jobs.resize(round)
  local task, options, first, count = invent(round, 50 + round.random(200))
  local result = round.pool:map_async(function_of(task), ids_of(round, first, count), options)
  for _ = 1, round.random(5) do
    local ok, err = pcall(round.pool.resize, round.pool, round.random(6))
    -- Where address space is scarce a pool has no room to grow.
    if not ok and not tostring(err):match "has room for" then error(err, 0) end
    result:wait(round.random(10) / 1000)
  end
  check_list(round, task, options, first, count, result:get())
end

--- Pools within workers.
function jobs.nested(round)
  local task, options, first, count = invent(round, 12)
  task.endless = nil
  local results = round.pool:map(function(id)
    local value = require "chaos.work".run(task, id)
    local inner = require "tidemill".with(2, function(pool)
      return pool:map(function(x) return x * 2 end, { 1, 2, 3, 4 }, { errors = "collect" })
    end)
    for i = 1, 4 do
      if inner[i] ~= i * 2 and not require "tidemill".is_error(inner[i]) then
        error "a nested result is wrong"
      end
    end
    return value
  end, ids_of(round, first, count), options)
  for i = 1, count do
    local err = results[i]
    -- A nested pool may be broken by what its host suffers.
    if not (tidemill.is_error(err) and err.kind == "task" and round.batch.allow.worker
      and not err.message:match "is wrong") then
      check(round, task, options, first + i - 1, err)
    end
  end
end

local function check_count(what, count, least, most)
  if count < least or count > most then
    wrong("%s counts %d, not %d to %d", what, count, least, most)
  end
end

--- What nobody can have been killed with is where it was: shared objects after their use.
local function check_shares(shares, ids, done)
  local begun, listed, sum = 0, {}, 0
  for _, times in pairs(ids) do begun = begun + times end
  local locked, state = shares.lock:acquire(PATIENCE_S)
  if not locked then wrong "the lock is nobody's, and taken" end
  local pair = shares.pair
  if state ~= "abandoned" and pair[1] ~= pair[2] then wrong "a lock was lost" end
  work.mend(pair, state)
  shares.lock:release()
  for _ = 1, 2 do
    if not shares.gate:acquire(PATIENCE_S) then wrong "a semaphore has less than it had" end
  end
  if shares.gate:acquire(0) then wrong "a semaphore has more than it had" end
  for _, count in shares.sums:pairs() do sum = sum + count end
  for _ = 1, shares.list:size() do
    local ok, id = shares.list:try_get()
    if not ok or not ids[id] then wrong("the queue has %s", show(id)) end
    listed[id] = (listed[id] or 0) + 1
  end
  for id, times in pairs(ids) do
    check_count("the queue, of item " .. id, listed[id] or 0, done[id] and 1 or 0, times)
  end
  local least = 0
  for _ in pairs(done) do least = least + 1 end
  check_count("the value", tonumber(shares.done:get()), least, begun)
  check_count("inside the semaphore", tonumber(shares.inside:get()), least, begun)
  check_count("the pair", tonumber(pair[2]), least, begun)
  check_count("the dict", sum, least, begun)
end

--- Items that share whatever can be shared.
function jobs.shared(round)
  local task, options, first, count = invent(round, round.random(150))
  local shares = work.shares(count)
  local results = round.pool:map(function(id)
    return require "chaos.work".share(task, id, shares, id - first + 1)
  end, ids_of(round, first, count), options)
  check_list(round, task, options, first, count, results)
  local ids, done, ledger = {}, {}, work.ledger(round.path)
  for i = 1, count do
    local id = first + i - 1
    ids[id] = ledger[id]
    done[id] = not tidemill.is_error(results[i]) or nil
    check_count("the mark of item " .. id, shares.marks[i], done[id] and 1 or 0, ids[id])
  end
  check_shares(shares, ids, done)
end

--- Processes that take from a queue what they count.
function jobs.processes(round)
  local count, list, sum = round.random(40), tidemill.queue(), tidemill.value "int64_t"
  for i = 1, count do list:put(i) end
  local all, least, lost = {}, 0, 0
  local started, failure = true, nil
  for _ = 1, round.random(3) do
    local process = tidemill.process(function()
      local taken = 0
      while true do
        local ok, number = list:try_get()
        if not ok then return taken end
        sum:add(number)
        taken = taken + 1
      end
    end)
    started, failure = pcall(process.start, process)
    if not started then break end
    all[#all + 1] = process
  end
  for _, process in ipairs(all) do
    process:join()
    local ok, taken = pcall(process.result, process)
    if ok then
      least = least + taken
    else
      lost = lost + 1
      check_error(round, {}, {}, 0, taken)
    end
  end
  if not started then error(failure, 0) end -- those before it have been joined
  if lost == 0 then
    check_count("what the processes have taken", least, count, count)
    check_count("its sum", tonumber(sum:get()), count * (count + 1) / 2, count * (count + 1) / 2)
  end
  check_count("what is left", list:size(), 0, count - least)
end

--- An event loop's way to wait.
function jobs.poll(round)
  local task, options, first, count = invent(round, round.random(100))
  local result = round.pool:map_async(function_of(task), ids_of(round, first, count), options)
  round.pool:fd()
  while not result:ready() do round.pool:poll(0.05) end
  check_list(round, task, options, first, count, result:get())
end

--- Work in full flight is cut off.
function jobs.terminate(round)
  local task, options, first, count = invent(round, 200)
  local result = round.pool:map_async(function_of(task), ids_of(round, first, count), options)
  result:wait(round.random(20) / 1000)
  round.pool:terminate()
  local ok, results = result:try(30)
  if ok then
    check_list(round, task, options, first, count, results)
  elseif results.kind ~= "terminated" then
    check_error(round, task, options, first, results)
  end
  for id = first, first + count - 1 do check_begun(round, options, id, 0) end
end

jobs.names = { "map", "map", "starmap", "large", "stream", "stream", "single", "reduce",
  "broadcast", "resize", "nested", "poll", "shared", "shared", "processes" }

return jobs
