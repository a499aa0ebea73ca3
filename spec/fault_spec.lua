-- What each fault point costs: the calls that fail, and the steps at which a process dies. Every
-- point of src/base/fault.h is named here. Builds without them have nothing to test.

local common = require "support.common"
local faults = require "support.faults"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local numbers, raised = common.numbers, common.raised

local function spin() while true do end end
local function small(x) return x * 2 end
local function large(x) return ("%d,"):format(x):rep(3000) end

local PATIENCE_S = 30

local function supervisor() return processes.children(processes.self())[1] end

local function end_supervisor()
  local pid = supervisor()
  if not pid then return end
  processes.kill(pid, processes.SIGKILL)
  processes.eventually(PATIENCE_S, function() return not processes.is_alive(pid) end)
end

local function await_fired(name)
  assert(processes.eventually(PATIENCE_S, function() return faults.fired(name) > 0 end),
    name .. " does not fire")
end

--- A fresh pool does all that is asked of it.
local function assert_usable()
  tidemill.with(2, common.assert_alive)
end

-- ---- workers ----

-- What happens when a worker dies at its step: how many items fail, and how often the one that
-- fails has been begun. Every other item is done once.
local steps = {
  ["worker.born"] = { lost = 0, fresh = true },
  ["worker.ready"] = { lost = 0, fresh = true },
  ["worker.up"] = { lost = 0, fresh = true },
  ["claim.owned"] = { lost = 1, begun = 0 },
  ["claim.noted"] = { lost = 1, begun = 0 },
  ["finish.begun"] = { lost = 0 },
  ["finish.done"] = { lost = 0 },
  ["finish.pushed"] = { lost = 0 },
  ["finish.waking"] = { lost = 0 },
  ["rest.spinning"] = { lost = 0, fresh = true, at = 1 },
  ["rest.asleep"] = { lost = 0 },
  ["publish.named"] = { lost = 1, begun = 1, make = large },
  ["publish.written"] = { lost = 1, begun = 1, make = large },
  ["publish.freed"] = { lost = 1, begun = 1, make = large },
  ["region.carved"] = { lost = 1, begun = 1, make = large },
  ["region.allocated"] = { lost = 1, begun = 1, make = large },
  ["region.named"] = { lost = 1, begun = 1, make = large },
  ["region.freed"] = { lost = 1, begun = 1, make = large },
  ["region.taken"] = { lost = 1, begun = 1, make = large },
}

--- Again and again, until the point has fired.
local function repeat_until_fired(name, act)
  local deadline = processes.clock() + PATIENCE_S
  local round = 0
  repeat
    assert(processes.clock() < deadline, name .. " does not fire")
    round = round + 1
    act(round)
  until faults.fired(name) > 0
  return round
end

--- Maps, in all of which one item is lost or none; how often each was begun is in the log.
local function check_maps(name, pool, step, log)
  local lost = 0
  local make = step.make or small
  local function work(x)
    require "support.files".note(log, x)
    return make(x)
  end
  local function run(round)
    local first = round * 1000
    local results = pool:map(work, tidemill.range(first + 1, first + 40),
      { chunksize = 4, errors = "collect" })
    local begun = files.tally(log)
    for i = 1, 40 do
      local x = first + i
      if tidemill.is_error(results[i]) then
        lost = lost + 1
        assert.equal("worker", results[i].kind)
        assert.equal(9, results[i].signal)
        assert.equal(i, results[i].index)
        assert.equal(step.begun, begun[tostring(x)] or 0)
      else
        assert.equal(make(x), results[i])
        assert.equal(1, begun[tostring(x)])
      end
    end
  end
  local rounds = repeat_until_fired(name, run)
  run(rounds + 1)
  assert.equal(step.lost, lost)
end

local function check_worker_step(name, step)
  local log = files.log()
  local pool = not step.fresh and tidemill.pool(2)
  if pool then common.assert_alive(pool) end -- so that both workers wait for work
  faults.set(name, "die", { at = step.at or 2, role = "worker" })
  pool = pool or tidemill.pool(2)
  check_maps(name, pool, step, log)
  faults.clear()
  common.assert_alive(pool)
  pool:terminate()
  os.remove(log)
end

-- ---- the host ----

-- Steps at which the host dies: in a process of its own.
local host_steps = {
  ["submit.ready"] = "pool:map(f, { 1, 2, 3 }, 1)",
  ["submit.entered"] = "pool:map(f, { 1, 2, 3 }, 1)",
  ["submit.mailed"] = "pool:broadcast(f, 1)",
  ["revoke.freed"] = [[
    local results = {}
    for i = 1, 20 do results[i] = pool:apply_async(spin, {}) end
    for i = 20, 1, -1 do results[i]:cancel() end
  ]],
  ["collect.taken"] = "pool:map(f, { 1, 2, 3 }, 1)",
  ["region.given"] = "pool:map(function(n) return ('x'):rep(n) end, { 5000, 5000, 5000 }, 1)",
}

local function check_host_step(name, act)
  local run = shell.start(([[
    local core = require "tidemill.core"
    local function f(x) return x end
    local function spin() while true do end end
    pool:map(f, { 1 })
    core.fault(%q, "die", 1, nil, "host")
    mark()
    %s
  ]]):format(name, act))
  local output, err, status = shell.finish(run) -- which proves that nothing is left
  assert.equal(137, status, output .. err)
  faults.note(name)
end

-- Calls that fail while a pool is opened, and when it is tried once more: it is refused with a
-- reason.
local refusals = {
  { "arena.create", faults.EMFILE, "cannot create a memory object" },
  { "arena.size", faults.EFBIG, "cannot size a memory object" },
  { "arena.map", faults.ENOMEM, "cannot map %d+ bytes" },
  { "event.open", faults.EMFILE, "cannot create an eventfd" },
  { "pool.malloc", faults.ENOMEM, "cannot allocate a pool" },
  { "pool.malloc", faults.ENOMEM, "cannot allocate %d+ slots", at = 2 },
  { "pool.malloc", faults.ENOMEM, "cannot allocate %d+ slots", at = 3 },
  { "pool.malloc", faults.ENOMEM, "out of memory", at = 4 },
  { "region.full", faults.ENOMEM, "no room for %d+ bytes of options" },
  { "channel.send", faults.EPIPE, "the supervisor is gone" },
  { "channel.send", faults.EAGAIN, "does not answer" },
  { "channel.short", faults.EAGAIN, "the supervisor is gone" },
  { "arena.map", faults.ENOMEM, "cannot map %d+ bytes", role = "supervisor" },
  { "crew.malloc", faults.ENOMEM, "cannot allocate %d+ workers", role = "supervisor" },
  { "channel.rights", faults.EMFILE, "no descriptors came along", role = "supervisor" },
  { "channel.short", faults.EAGAIN, "the supervisor is gone", role = "supervisor" },
  { "child.fork", faults.EAGAIN, "cannot fork worker 1 of 2", role = "supervisor" },
  { "child.fork", faults.EAGAIN, "cannot fork worker 2 of 2", role = "supervisor", at = 2 },
  { "worker.born", "die", "before they take an item", role = "worker", later = true },
  { "child.fork", faults.EAGAIN, "cannot fork a supervisor", new = true },
  { "office.signalfd", faults.EMFILE, "supervisor", role = "supervisor", new = true },
  { "office.begun", "die", "supervisor", role = "supervisor", new = true },
  { "office.prepare", faults.ENOMEM, "before they take an item", role = "supervisor", new = true,
    later = true },
}

local function check_refusal(row)
  local name, action, pattern = unpack(row)
  if row.new then end_supervisor() end
  local at = row.at or 1
  faults.set(name, action, { at = at, every = at, role = row.role or "host" })
  local pool
  local ok, err = pcall(function()
    pool = tidemill.pool(2)
    if row.later then pool:map(small, { 1 }) end
  end)
  if pool then pool:terminate() end
  await_fired(name)
  faults.clear()
  assert.is_false(ok)
  assert.is_true(tidemill.is_error(err), tostring(err))
  assert.equal("broken", err.kind)
  assert.is_truthy(err.message:match(pattern), err.message)
  if row.new then end_supervisor() end
  assert_usable()
end

-- ---- the supervisor ----

local function die() processes.kill(processes.self(), 9) end

local function kill_one(pool)
  return pool:map(function(x)
    if x == 7 then die() end
    return x
  end, numbers(40), { chunksize = 4, errors = "collect" })
end

-- Steps at which it dies: what is outstanding fails as "broken", whatever was done by then.
local ends = {
  ["office.obeys"] = function() tidemill.pool(2):map(small, { 1 }) end,
  ["crew.made"] = function() tidemill.pool(2) end,
  ["crew.forked"] = function() tidemill.pool(2) end,
  ["crew.reaped"] = kill_one,
  ["reclaim.lost"] = kill_one,
  ["crew.reclaimed"] = kill_one,
  ["crew.vacant"] = kill_one,
  ["watch.called"] = function(pool)
    return { pool:apply_async(spin, {}, { timeout = 0.1 }):try(PATIENCE_S) }
  end,
  ["watch.judged"] = function(pool)
    return { pool:apply_async(spin, {}, { timeout = 0.1 }):try(PATIENCE_S) }
  end,
  ["crew.stopped"] = function(pool) pool:terminate() end,
}

local function check_end(name, act)
  local pool = not name:match "^crew%.[mf]" and name ~= "office.obeys" and tidemill.pool(2)
  faults.set(name, "die", { role = "supervisor" })
  local before = supervisor()
  local ok, results = pcall(act, pool)
  assert.equal(1, faults.fired(name))
  faults.clear()
  if not ok then
    assert.equal("broken", results.kind)
  else
    for i, value in pairs(results or {}) do
      if tidemill.is_error(value) then
        assert.is_true(value.kind == "broken" or value.kind == "worker" and i == 7, value.kind)
      end
    end
  end
  if pool then
    raised(name == "crew.stopped" and "closed" or "broken", pool.map, pool, small, { 1 })
    pool:terminate()
  end
  assert_usable()
  assert.is_true(supervisor() ~= before)
end

-- ---- what ends early ----

local function check_sleeps(name, errno)
  tidemill.with(2, function(pool)
    faults.set(name, errno, { every = 1 })
    for round = 1, 5 do
      local results = pool:map(function(x)
        if x % 10 == 0 then require "support.files".nap(0.002) end
        return x
      end, numbers(40 * round), 3)
      assert.same(numbers(40 * round), results)
    end
    for i, value in pool:imap(common.identity, numbers(50), 2) do assert.equal(i, value) end
    assert.is_true(faults.fired(name) > 0)
  end)
end

-- ---- memory ----

-- Kinds of error that a lack of memory may have.
local kinds = { encode = true, decode = true, task = true, broken = true }

--- The call at hit `at` fails, in each way to run something; @return whether there was such a hit
local function starve(pool, name, role, at)
  local wide = {}
  for i = 1, 600 do wide[i] = { x = { i } } end
  local nested = function() return wide, function() return wide[1] end end
  faults.set(name, faults.ENOMEM, { at = at, role = role })
  local results = { pcall(function()
    local values = pool:map(function(x) return { x, nested() } end, { wide, { wide }, 3 },
      { chunksize = 1, errors = "collect" })
    for i = 1, 3 do
      if tidemill.is_error(values[i]) then error(values[i]) end
      assert.equal(600, #values[i][2])
    end
    assert.same({ 1, "x" }, { pool:apply(function(...) return ... end, { 1, "x" }) })
  end) }
  local fired = faults.fired(name)
  faults.clear()
  if not results[1] then
    assert.is_true(fired > 0, tostring(results[2]))
    assert.is_true(tidemill.is_error(results[2]), tostring(results[2]))
    assert.is_true(kinds[results[2].kind], tostring(results[2]))
  end
  common.assert_alive(pool)
  return fired > 0
end

local function check_starving(name, role)
  local at, pool = 1
  repeat
    pool = tidemill.pool(1) -- which has room for nothing yet
    local was_hit = starve(pool, name, role, at)
    pool:terminate()
    at = at + 1
  until not was_hit
  assert.is_true(at > 2, "it was never hit")
end

--- Whatever a worker has no room for, at whichever of its allocations, no result is wrong.
local function check_full(make, chunk, at)
  tidemill.with(1, function(pool)
    faults.set("region.full", faults.ENOMEM, { at = at, role = "worker" })
    local results = pool:map(make, tidemill.range(1, 30), { errors = "collect", chunksize = chunk })
    local fired = faults.fired "region.full"
    faults.clear()
    local failed = 0
    for i = 1, 30 do
      if tidemill.is_error(results[i]) then
        failed = failed + 1
        assert.is_true(kinds[results[i].kind], tostring(results[i]))
      else
        assert.same(make(i), results[i])
      end
    end
    assert.is_true(failed <= fired)
  end)
end

-- ---- stops ----

--- A pool at work for a while, of which a worker is to stop.
local function stop_at(name, make)
  local pool = tidemill.pool(2)
  pool:map(make, numbers(20), 2)
  faults.set(name, "stop", { role = "worker" })
  return pool
end

--- A worker that is stopped at a step holds up what it has in hand, and no more.
local function check_stop(name, step)
  local log = files.log()
  local make = step.make or small
  local pool = stop_at(name, make)
  local result
  repeat_until_fired(name, function()
    io.open(log, "w"):close()
    result = pool:map_async(function(x)
      require "support.files".note(log, x)
      return make(x)
    end, numbers(40), 4)
    repeat result:wait(0.01) until result:ready() or faults.fired(name) > 0
  end)
  local stopped
  assert(processes.eventually(PATIENCE_S, function()
    for _, pid in ipairs(pool:workers()) do
      if processes.state(pid) == "T" then stopped = pid end
    end
    return stopped
  end))
  local nothing_in_hand = name:match "^rest" or name:match "^finish%.[pw]"
  assert(processes.eventually(PATIENCE_S, function()
    result:wait(0.01)
    return nothing_in_hand and result:ready() or #files.lines(log) >= 36
  end))
  processes.kill(stopped, processes.SIGCONT)
  for i, value in ipairs(result:get(PATIENCE_S)) do assert.equal(make(i), value) end
  for i = 1, 40 do assert.equal(1, files.tally(log)[tostring(i)]) end
  common.assert_alive(pool)
  pool:terminate()
  os.remove(log)
end

--- A time limit ends what a stopped worker holds up.
local function check_timeout(name, step)
  local make = step.make or small
  local pool = stop_at(name, make)
  local lost = 0
  repeat_until_fired(name, function()
    local results = pool:map_async(make, numbers(40), { chunksize = 4, timeout = 0.2,
      errors = "collect" }):get(PATIENCE_S)
    for i = 1, 40 do
      if tidemill.is_error(results[i]) then
        lost = lost + 1
        assert.equal("timeout", results[i].kind)
        assert.equal(i, results[i].index)
      else
        assert.equal(make(i), results[i])
      end
    end
  end)
  assert.equal(step.lost, lost)
  faults.clear()
  common.assert_alive(pool)
  pool:terminate()
end

--- Somebody lets a worker go on between the sentence and its execution.
local function check_reprieve(log)
  local gate = files.gate()
  local pool = tidemill.pool(1)
  faults.set("watch.judged", "stop", { role = "supervisor" })
  local result = pool:map_async(function(x)
    local notes = require "support.files"
    notes.note(log, x)
    if x == 1 then notes.pass(gate) end
    if x == 2 then notes.nap(0.05) end
    return x
  end, { 1, 2, 3 }, { chunksize = 3, timeout = 0.1, errors = "collect" })
  local pid, warden = pool:workers()[1], supervisor()
  await_fired "watch.judged"
  assert(processes.eventually(PATIENCE_S, function()
    return processes.state(warden) == "T"
  end))
  files.open(gate)
  processes.kill(pid, processes.SIGCONT)
  processes.eventually(0.3, function() return #files.lines(log) > 1 end)
  processes.kill(warden, processes.SIGCONT)
  local results = result:get(PATIENCE_S)
  faults.clear()
  common.assert_alive(pool)
  pool:terminate()
  return results
end

describe("a fault", function()
  if not faults.exist then
    pending "needs a build with fault points"
    return
  end

  leaks.watch(after_each, assert)
  after_each(faults.clear)

  for name, step in pairs(steps) do
    it(("at %s costs a worker, and %d items"):format(name, step.lost), function()
      check_worker_step(name, step)
    end)
  end

  for name, act in pairs(host_steps) do
    it(("at %s ends the host, and all that it had"):format(name), function()
      check_host_step(name, act)
    end)
  end

  for _, row in ipairs(refusals) do
    it(("at %s (%s %d) refuses a pool"):format(row[1], row.role or "host", row.at or 1), function()
      check_refusal(row)
    end)
  end

  for name, act in pairs(ends) do
    it(("at %s ends the supervisor, and breaks its pools"):format(name), function()
      check_end(name, act)
    end)
  end

  for _, name in ipairs { "futex.wait", "host.poll" } do
    it(("at %s, again and again, costs nothing"):format(name), function()
      check_sleeps(name, faults.EINTR)
    end)
  end

  for _, row in ipairs { { "codec.malloc", "host" }, { "codec.malloc", "worker" },
    { "job.malloc", "host" }, { "region.full", "host" }, { "region.full", "worker" } } do
    it(("at %s in a %s fails what needs the memory"):format(row[1], row[2]), function()
      check_starving(row[1], row[2])
    end)
  end

  it("at region.full spoils no result", function()
    local function boxed(x) return { x } end
    local function compared(x) return x > 9 end
    local function mixed(x) return x % 3 > 0 and x or tostring(x) end
    for _, make in ipairs { small, large, boxed, compared, mixed } do
      for _, chunk in ipairs { 1, 2, 7, 30 } do
        for at = 1, 4 do check_full(make, chunk, at) end
      end
    end
  end)

  for name, step in pairs(steps) do
    if not step.fresh then
      it(("at %s that stops a worker holds up one chunk"):format(name), function()
        check_stop(name, step)
      end)
      it(("at %s that stops a worker is ended by a time limit"):format(name), function()
        check_timeout(name, step)
      end)
    end
  end

  it("at watch.judged, and a worker that is let go on, costs no innocent item", function()
    local log = files.log()
    local results = check_reprieve(log)
    assert.equal("timeout", results[1].kind)
    assert.equal(2, results[2])
    assert.equal(3, results[3])
    local begun = files.tally(log)
    assert.is_true((begun["1"] or 0) <= 1) -- it may not have come to it on a busy machine
    assert.same({ 1, 1 }, { begun["2"], begun["3"] })
    os.remove(log)
  end)

  it("at watch.seize leaves time limits that a signal enforces", function()
    faults.set("watch.seize", faults.EPERM, { every = 1 })
    tidemill.with(2, function(pool)
      local results = pool:map(function(x)
        while x % 5 == 0 do end
        return x
      end, numbers(20), { timeout = 0.05, errors = "collect", chunksize = 3 })
      for i = 1, 20 do
        if i % 5 == 0 then
          assert.equal("timeout", results[i].kind)
        else
          assert.equal(i, results[i])
        end
      end
    end)
    assert.equal(4, faults.fired "watch.seize")
  end)

  it("at mail.cleared costs one result of a broadcast", function()
    tidemill.with(2, function(pool)
      faults.set("mail.cleared", "die")
      assert.equal("worker", common.raised("worker", pool.broadcast, pool, small, 3).kind)
      assert.same({ 6, 6 }, pool:broadcast(small, 3))
    end)
  end)

  it("at rest.left costs nothing", function()
    tidemill.with(3, function(pool)
      faults.set("rest.left", "die", { role = "worker" })
      pool:resize(1)
      assert(processes.eventually(PATIENCE_S, function() return faults.fired "rest.left" == 1 end))
      assert(processes.eventually(PATIENCE_S, function() return #pool:workers() == 1 end))
      common.assert_alive(pool)
      pool:resize(3)
      assert(processes.eventually(PATIENCE_S, function() return #pool:workers() == 3 end))
      common.assert_alive(pool)
    end)
  end)

  it("has been seen at every point there is", function()
    assert.same({}, faults.unreached())
  end)
end)
