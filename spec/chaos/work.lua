--- What the items of chaos do, in the workers, and what is expected of them, in the host.

local system = require "chaos.system"

local work = { LEDGER_SIZE = 2 ^ 18 }

local ledgers = {}

--- How often each item was begun: memory that all processes share.
function work.ledger(path)
  ledgers[path] = ledgers[path] or system.map_numbers(path, work.LEDGER_SIZE)
  return ledgers[path]
end

local makers = {
  number = function(id) return id * 3 + 0.5 end,
  boolean = function(id) return id % 2 == 0 end,
  string = function(id) return "item " .. id end,
  table = function(id) return { id = id, list = { id, id + 1 }, text = tostring(id) } end,
  large = function(id, size) return ("%d,"):format(id):rep(size) end,
}

work.kinds = { "number", "boolean", "string", "table", "large" }

---@class chaos.Task
---@field path string      of the ledger
---@field kind string      of its results
---@field size integer     of large ones
---@field raises boolean?  some items do
---@field flaky boolean?   some do the first time
---@field endless boolean? some never end
---@field naps boolean?    some take a while

function work.raises(task, id) return task.raises and id % 11 == 3 end
function work.is_endless(task, id) return task.endless and id % 29 == 7 end
function work.value(task, id) return makers[task.kind](id, task.size) end

--- Do an item.
function work.run(task, id)
  local ledger = work.ledger(task.path)
  ledger[id] = ledger[id] + 1
  if task.naps and id % 5 == 0 then system.nap(0.001) end
  if work.raises(task, id) then error({ id = id }) end
  if task.flaky and id % 9 == 4 and ledger[id] == 1 then error "the first time" end
  while work.is_endless(task, id) do end
  return work.value(task, id)
end

--- What the items of a round share.
function work.shares(count)
  local tidemill = require "tidemill"
  return {
    done = tidemill.value "int64_t", marks = tidemill.array("int32_t", count),
    lock = tidemill.lock(), pair = tidemill.array("int64_t", 2),
    gate = tidemill.semaphore(2), inside = tidemill.value "int64_t",
    sums = tidemill.dict(), list = tidemill.queue(),
  }
end

--- What is the same in both places while nobody has the lock, whoever died with it.
function work.mend(pair, state)
  if state == "abandoned" then pair[2] = pair[1] end
end

--- Do an item, and count it in whatever can be shared: slowly now and then, so that some are killed
--- while they have it.
function work.share(task, id, shares, place)
  local value, pair = work.run(task, id), shares.pair
  local function dawdle() if id % 4 == 0 then system.nap(0.002) end end
  shares.marks[place] = shares.marks[place] + 1
  shares.lock:with(function(state)
    work.mend(pair, state)
    pair[1] = pair[1] + 1
    dawdle()
    pair[2] = pair[2] + 1
  end)
  shares.gate:with(function()
    dawdle()
    shares.inside:add(1)
  end)
  shares.sums:update(id % 7, function(sum)
    dawdle()
    return (sum or 0) + 1
  end)
  shares.list:put(id)
  shares.done:add(1)
  return value
end

--- Are two results the same?
function work.is_same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not work.is_same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

return work
