--- What is done to a host, its supervisors and its workers from outside, at random instants.

local system = require "chaos.system"

local attacks = {}

--- The processes of a host: its supervisors, and all below them.
local function family(host)
  local supervisors, workers = system.children(host), {}
  local function add(pid)
    for _, child in ipairs(system.children(pid)) do
      workers[#workers + 1] = child
      add(child)
    end
  end
  for _, pid in ipairs(supervisors) do add(pid) end
  return supervisors, workers
end

local function one_of(random, list) return #list > 0 and list[random(#list)] or nil end

local harmless = { system.SIGCHLD, system.SIGWINCH, system.SIGURG, system.SIGCONT }
local handled = { system.SIGUSR1, system.SIGUSR2, system.SIGALRM, system.SIGCHLD, system.SIGWINCH,
  system.SIGCONT }
local ignored = { system.SIGINT, system.SIGTERM, system.SIGHUP, system.SIGCHLD, system.SIGCONT }

---@class chaos.Siege
---@field host integer
---@field random fun(limit: integer): integer
---@field stopped table<integer, number>  who is stopped, and until when
---@field killed integer                  workers, or who has workers below it

local acts = {}

function acts.kill_worker(siege, _, workers)
  local pid, signal = one_of(siege.random, workers), one_of(siege.random, system.deadly)
  if pid and system.strike(siege.host, pid, signal) then siege.killed = siege.killed + 1 end
end

local function stop(siege, pid)
  if pid and system.strike(siege.host, pid, system.SIGSTOP) then
    siege.stopped[pid] = system.now() + siege.random(300) / 1000
  end
end

function acts.stop_worker(siege, _, workers) stop(siege, one_of(siege.random, workers)) end
function acts.stop_supervisor(siege, supervisors)
  stop(siege, one_of(siege.random, supervisors))
end

function acts.stop_host(siege) stop(siege, siege.host) end

--- Somebody else's SIGCONT, to whom it does not concern.
function acts.continue(siege, supervisors, workers)
  for _, list in ipairs { supervisors, workers } do
    for _, pid in ipairs(list) do
      if siege.random(2) == 1 then system.strike(siege.host, pid, system.SIGCONT) end
    end
  end
end

function acts.kill_supervisor(siege, supervisors)
  local pid = siege.random(8) == 1 and one_of(siege.random, supervisors)
  if pid then system.strike(siege.host, pid, system.SIGKILL) end
end

function acts.signal_host(siege)
  for _ = 1, siege.random(5) do system.kill(siege.host, one_of(siege.random, handled)) end
end

function acts.signal_workers(siege, _, workers)
  local pid = one_of(siege.random, workers)
  if pid then system.strike(siege.host, pid, one_of(siege.random, harmless)) end
end

--- Only once it has said what it ignores: a child of a moment ago may die of it.
function acts.signal_supervisor(siege, supervisors)
  local pid = one_of(siege.random, supervisors)
  if pid and system.name(pid) == "tidemill-super" then
    system.strike(siege.host, pid, one_of(siege.random, ignored))
  end
end

function acts.kill_host(siege)
  if siege.random(60) == 1 then
    siege.is_over = true
    system.kill(siege.host, system.SIGKILL)
  end
end

--- Let those go on whose time has come; all of them, if need be.
function attacks.release(siege, all)
  for pid, due in pairs(siege.stopped) do
    if all or system.now() >= due then
      system.strike(siege.host, pid, system.SIGCONT)
      siege.stopped[pid] = nil
    end
  end
end

--- Let all go on that may be stopped, by us or by themselves.
function attacks.rest(siege)
  local supervisors, workers = family(siege.host)
  for _, list in ipairs { supervisors, workers } do
    for _, pid in ipairs(list) do system.strike(siege.host, pid, system.SIGCONT) end
  end
end

function attacks.new(host, batch, random)
  local siege = { host = host, random = random, stopped = {}, killed = 0, weights = {} }
  for name, weight in pairs(batch.attacks) do
    siege.weights[#siege.weights + 1] = { name = name, weight = weight }
  end
  table.sort(siege.weights, function(a, b) return a.name < b.name end)
  return siege
end

--- One attack, or none.
function attacks.strike(siege)
  attacks.release(siege)
  local total = 20
  for _, each in ipairs(siege.weights) do total = total + each.weight end
  local at = siege.random(total)
  for _, each in ipairs(siege.weights) do
    at = at - each.weight
    if at <= 0 then return acts[each.name](siege, family(siege.host)) end
  end
end

return attacks
