--- Starts a host per batch, attacks it, and looks after each round at what it has left. A deadline
--- per round proves that nothing hangs.

local attacks = require "chaos.attacks"
local plan = require "chaos.plan"
local system = require "chaos.system"

local driver = {}

local ROUND_S = 120
local PATIENCE_S = 10
local BUSY = 8

local function show_members(host)
  local lines = {}
  local members = system.members(host)
  members[host] = system.name(host)
  for pid, name in pairs(members) do
    lines[#lines + 1] = ("%d %s, state %s, waits in %s"):format(pid, name or "?",
      system.state(pid) or "-", system.slurp(("/proc/%d/wchan"):format(pid)) or "?")
    lines[#lines + 1] = system.slurp(("/proc/%d/stack"):format(pid)) or ""
    local gdb = io.popen(("timeout 20 gdb -p %d -batch -ex bt 2>/dev/null | grep '^#'"):format(pid))
    lines[#lines + 1] = gdb:read "*a"
    gdb:close()
  end
  return table.concat(lines, "\n")
end

---@class chaos.Trial  one host
---@field batch chaos.Batch
---@field host integer
---@field lines string[]  what it has said

local function fail(trial, format, ...)
  error({ trial = trial, text = format:format(...) }, 0)
end

--- The next line that it has said, or nil.
local function hear(trial)
  local file = trial.file
  file:seek("cur", 0)
  local at = file:seek()
  local line = file:read "*l"
  if not line then return nil end
  if file:seek() == at + #line then -- without its end yet
    file:seek("set", at)
    return nil
  end
  trial.lines[#trial.lines + 1] = line
  return line:match "^@(%a+) ?(.*)$"
end

local function describe_end(status)
  local signal = status % 128
  return signal ~= 0 and ("signal %d"):format(signal) or ("exit code %d"):format(status / 256)
end

-- ---- after a round ----

local function await(seconds, condition)
  local deadline = system.now() + seconds
  while not condition() do
    if system.now() > deadline then return false end
    system.nap(0.002)
  end
  return true
end

--- Only supervisors are left, without a pool.
local function check_rest(trial)
  local host, left = trial.host, nil
  local supervisors = {}
  local function is_clean()
    supervisors, left = {}, nil
    for _, pid in ipairs(system.children(host)) do supervisors[pid] = true end
    for pid, name in pairs(system.members(host)) do
      if not supervisors[pid] then left = ("process %d, %s"):format(pid, name) end
    end
    local mapped, open = system.holdings(host)
    if mapped > 0 then left = ("%d arenas"):format(mapped) end
    for pid in pairs(supervisors) do
      mapped = system.holdings(pid)
      if mapped > 0 then left = ("%d arenas of its supervisor %d"):format(mapped, pid) end
      open = open - 1 -- its channel
    end
    trial.open = trial.open or open
    if open > trial.open then left = ("%d descriptors, not %d"):format(open, trial.open) end
    return not left
  end
  if not await(PATIENCE_S, is_clean) then
    fail(trial, "it leaves %s\n%s", left, show_members(host))
  end
end

local function check_gone(trial)
  if not await(PATIENCE_S, function() return not next(system.members(trial.host)) end) then
    fail(trial, "it leaves processes behind its end\n%s", show_members(trial.host))
  end
end

--- A sanitizer may have spoken in a process whose death was expected.
local function check_reports(trial)
  local text = system.slurp(trial.output)
  local at = text:find("ERROR: AddressSanitizer", 1, true)
    or text:find "%.[ch]:%d+:%d+: runtime error"
  if at then fail(trial, "a sanitizer reports: %s", text:sub(at, at + 3000)) end
end

-- ---- a trial ----

local function is_excused(batch)
  return batch.faults or batch.allow.init
end

--- Deal with what the host has said; @return true when it has said all
local function heed(trial, word, rest)
  if word == "wrong" then fail(trial, "%s", rest) end
  if word == "round" then trial.deadline = system.now() + ROUND_S end
  if word == "ready" or word == "ended" then
    trial.lost = trial.lost + (tonumber(rest:match " (%d+)$") or 0)
    attacks.release(trial.siege, true)
    attacks.rest(trial.siege)
    check_rest(trial)
    if trial.lost > trial.siege.killed and not is_excused(trial.batch) then
      fail(trial, "%d items were lost with %d workers", trial.lost, trial.siege.killed)
    end
    trial.rounds = trial.rounds + (word == "ended" and 1 or 0)
    system.write(trial.input, "\n")
  end
  return word == "done"
end

local function start(batch, given, seed)
  local directory = given.directory .. "/" .. batch.number
  assert(os.execute("mkdir -m 777 " .. directory) == 0)
  local trial = { batch = batch, lines = {}, lost = 0, rounds = 0, output = directory .. "/output" }
  trial.file = assert(io.open(trial.output, "w+"))
  trial.host, trial.input = system.start({ "luajit", "spec/chaos/host.lua", tostring(seed),
    tostring(batch.number), batch.theme, directory }, {
    output = trial.output,
    prepare = function()
      system.limit(system.RLIMIT_CORE, 0)
      if batch.user then system.become(batch.user) end
    end,
  })
  trial.siege = attacks.new(trial.host, batch, system.generator(batch.seed + 1))
  trial.deadline = system.now() + ROUND_S
  return trial
end

local function watch(trial)
  while true do
    local word, rest = hear(trial)
    if word and heed(trial, word, rest) then break end
    if not word then
      trial.status = trial.status or system.reap(trial.host)
      if trial.status then return end
      if system.now() > trial.deadline then
        fail(trial, "it hangs\n%s", show_members(trial.host))
      end
      if trial.open then attacks.strike(trial.siege) end -- it is ready
      system.nap(trial.siege.random(4) / 1000)
    end
  end
  if not await(PATIENCE_S, function()
    attacks.release(trial.siege, true)
    trial.status = trial.status or system.reap(trial.host)
    return trial.status
  end) then fail(trial, "it does not end\n%s", show_members(trial.host)) end
end

local function try(batch, given, seed)
  local trial = start(batch, given, seed)
  local ok, err = pcall(watch, trial)
  if ok and trial.status ~= 0 and not (trial.siege.is_over and trial.status % 128 == 9) then
    ok, err = pcall(fail, trial, "it ended with %s", describe_end(trial.status))
  end
  if ok then ok, err = pcall(check_gone, trial) end
  if ok then ok, err = pcall(check_reports, trial) end
  trial.file:close()
  system.close(trial.input)
  if not ok then
    system.kill(trial.host, system.SIGKILL)
    error(err, 0)
  end
  return trial
end

-- ---- all of it ----

local function start_busy(directory)
  local pids = {}
  for i = 1, BUSY do
    local pid, input = system.start({ "luajit", "-e", "while true do end" },
      { output = directory .. "/busy" })
    system.close(input)
    pids[i] = pid
  end
  return pids
end

local function end_busy(pids)
  for _, pid in ipairs(pids) do
    system.kill(pid, system.SIGKILL)
    await(PATIENCE_S, function() return system.reap(pid) end)
  end
end

local function tell(err, given, seed)
  if type(err) ~= "table" then return print(err) end
  local batch = err.trial.batch
  print(("\nbatch %d (%s), round %d: %s"):format(batch.number, batch.theme, err.trial.rounds + 1,
    err.text))
  print "the host has said last:"
  for line in io.popen("tail -n 25 " .. err.trial.output):lines() do print("  " .. line) end
  print(("again: scripts/chaos --build %s --seed %d --batch %d --theme %s"):format(given.build,
    seed, batch.number, batch.theme))
end

--- The next batch; in place of a theme that cannot be here there is another.
local function next_batch(seed, number, given)
  local batch = plan.batch(seed, number, given.theme)
  return given.without[batch.theme] and plan.batch(seed, number, "all") or batch
end

---@class chaos.Options
---@field seed integer
---@field rounds integer?
---@field seconds number?
---@field batch integer?           this one only
---@field theme string?            for every batch
---@field without table<string, true>
---@field directory string         for what the hosts leave
---@field build string
---@field verbose boolean?

--- Run batches until rounds or time are used up. @return whether all is well
---@param given chaos.Options
function driver.run(given)
  local seed, begun, rounds, number = given.seed, system.now(), 0, given.batch or 1
  local counts = {}
  repeat
    local batch = next_batch(seed, number, given)
    local busy = batch.busy and start_busy(given.directory) or {}
    local ok, trial = pcall(try, batch, given, seed)
    end_busy(busy)
    if not ok then
      tell(trial, given, seed)
      return false
    end
    os.execute("rm -r " .. given.directory .. "/" .. number)
    rounds = rounds + trial.rounds
    counts[batch.theme] = (counts[batch.theme] or 0) + trial.rounds
    number = number + 1
    if given.verbose then
      print(("batch %d (%s): %d rounds, %d items lost, %d kills"):format(batch.number,
        batch.theme, trial.rounds, trial.lost, trial.siege.killed))
    end
  until given.batch or rounds >= (given.rounds or math.huge)
    or system.now() - begun >= (given.seconds or math.huge)
  local list = {}
  for theme, count in pairs(counts) do list[#list + 1] = theme .. " " .. count end
  table.sort(list)
  print(("seed %d: %d rounds in %d batches, %.0f s (%s)"):format(seed, rounds,
    number - (given.batch or 1), system.now() - begun, table.concat(list, ", ")))
  return true
end

return driver
