--- A host that chaos attacks: `luajit spec/chaos/host.lua SEED NUMBER THEME DIRECTORY`. It runs the
--- rounds of one batch, says on its output how far it is, and waits after each round for a byte on
--- its input: then the driver has looked at what was left.

package.path = "./spec/?.lua;" .. package.path

local system = require "chaos.system"
local plan = require "chaos.plan"

local seed, number, theme, directory = unpack(arg)
local batch = plan.batch(tonumber(seed), tonumber(number), theme)

for resource, value in pairs(batch.limits) do system.limit(resource, value) end
for _, signal in ipairs { system.SIGUSR1, system.SIGUSR2, system.SIGALRM, system.SIGCHLD,
  system.SIGWINCH, system.SIGURG } do
  system.handle(signal)
end

local tidemill = require "tidemill"
local core = require "tidemill.core"
local jobs = require "chaos.jobs"
local work = require "chaos.work"

local random = system.generator(batch.seed)
local path = directory .. "/ledger"

local PATIENCE_S = 10

local function say(format, ...) system.write(1, ("@" .. format .. "\n"):format(...)) end

--- Shared objects end with their last handle, also where that was in a process that was killed.
local function await_commons()
  local till = system.now() + PATIENCE_S
  while true do
    jit.flush() -- machine code keeps what it was compiled with
    collectgarbage()
    collectgarbage()
    local _, objects = core.commons()
    if (objects or 0) == 0 then return end -- nil where there are no commons
    if system.now() > till then
      say("wrong %d shared objects are left", objects)
      os.exit(1)
    end
    system.nap(0.002)
  end
end

--- The driver looks; nothing of ours shall be under way.
local function pass(word, ...)
  system.shower(0)
  await_commons()
  say(word, ...)
  if not system.read_byte(0) then os.exit(1) end
  if batch.shower then system.shower(batch.shower) end
end

-- ---- what a host does to itself ----

local crowd = {}

--- Hold some descriptors, or none.
local function gather_crowd()
  for _, file in ipairs(crowd) do file:close() end
  crowd = {}
  if not batch.crowd or random(2) == 1 then return end
  for i = 1, random(batch.crowd) do crowd[i] = io.open "/dev/null" end
end

local ENOMEM, EAGAIN, EMFILE, EINTR = 12, 11, 24, 4
local failures = { ["host.poll"] = EINTR, ["futex.wait"] = EINTR, ["child.fork"] = EAGAIN,
  ["event.open"] = EMFILE, ["arena.create"] = EMFILE, ["arena.map"] = ENOMEM,
  ["region.full"] = ENOMEM, ["codec.malloc"] = ENOMEM, ["job.malloc"] = ENOMEM,
  ["pool.malloc"] = ENOMEM, ["crew.malloc"] = ENOMEM, ["channel.rights"] = EMFILE }
local steps = { "worker.born", "worker.up", "claim.owned", "claim.noted", "finish.begun",
  "finish.done", "finish.pushed", "finish.waking", "rest.spinning", "rest.asleep", "rest.left",
  "publish.named", "publish.written", "publish.freed", "region.carved", "region.allocated",
  "region.named", "region.freed", "region.taken", "mail.cleared" }

--- A few fault points, in builds that have them.
local function set_faults()
  if not batch.faults or not core.fault then return end
  for name in pairs(core.faults()) do core.fault(name, nil) end
  for name, errno in pairs(failures) do
    if random(8) == 1 then core.fault(name, errno, random(40), random(2) == 1 and 40 or nil) end
  end
  for _ = 1, random(4) do
    core.fault(steps[random(#steps)], random(3) == 1 and "stop" or "die", random(40),
      20 + random(60), "worker")
  end
end

local function clear_faults()
  for name, fired in pairs(core.faults and core.faults() or {}) do
    if fired > 0 then say("fault %s, %d times", name, fired) end
    core.fault(name, nil)
  end
end

-- ---- rounds ----

--- May the round end with this error?
local function is_tolerated(err)
  if tidemill.is_error(err) then return batch.allow[err.kind] end
  local text = type(err) == "string" and err or ""
  return (batch.theme == "memory" or batch.faults) and text:match "memory"
    or batch.theme == "descriptors" and text:match "open"
end

local function open_pool()
  local ways = { "fork", "fork", "fork", "inherit", "spawn" }
  local way = ways[random(#ways)]
  return tidemill.pool {
    processes = random(4),
    start_method = way == "spawn" and way or nil,
    inherit = way == "inherit" or nil,
    maxtasksperchild = random(5) == 1 and 20 + random(50) or nil,
    seed = random(4) == 1 and random(1000) or nil,
  }
end

local function end_pool(pool)
  local way = random(4)
  if way == 1 then return pool:terminate() end
  if way == 2 then return end -- dropped
  pool:close()
  pool:join()
end

local function run(round)
  round.pool = open_pool()
  for _ = 1, random(3) do
    local name = jobs.names[random(#jobs.names)]
    say("job %s", name)
    jobs[name](round)
  end
  if random(6) == 1 then jobs.terminate(round) end
  end_pool(round.pool)
end

local next_id = 1

local function play(index)
  local round = { random = random, batch = batch, path = path, next_id = next_id, lost = 0 }
  say("round %d", index)
  gather_crowd()
  set_faults()
  local ok, err = xpcall(run, function(err)
    return type(err) == "string" and debug.traceback(err) or err
  end, round)
  clear_faults()
  if not ok and round.pool and random(2) == 1 then pcall(round.pool.terminate, round.pool) end
  if not ok and not is_tolerated(err) then
    say("wrong %s", (type(err) == "table" and err.chaos or tostring(err)):gsub("\n", " | "))
    os.exit(1)
  end
  next_id = round.next_id
  round.pool, err = nil, nil -- luacheck: ignore
  batch.crowd, round.crowd = nil, batch.crowd
  gather_crowd()
  batch.crowd = round.crowd
  pass("ended %d %d", index, round.lost)
end

work.ledger(path)
pcall(tidemill.with, 1, function() end)
pcall(tidemill.with, { processes = 1, start_method = "spawn" }, function() end)
pass "ready"
for index = 1, batch.rounds do play(index) end
say "done"
