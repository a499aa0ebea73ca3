--- What a batch of rounds suffers, from the seed alone: driver and host come to the same plan.

local system = require "chaos.system"

local plan = {}

---@class chaos.Batch
---@field number integer
---@field theme string
---@field seed integer      of the host's rounds
---@field rounds integer
---@field attacks table<string, integer>  from outside: weights, see attacks.lua
---@field limits table<integer, integer>  resource limits of the host
---@field user integer?     to run as
---@field faults boolean?   the host sets fault points
---@field shower number?    seconds between SIGALRMs
---@field crowd integer?    descriptors that the host holds on and off
---@field busy boolean?     beside busy processes
---@field fatal boolean?    the host is killed
---@field allow table<string, boolean>  kinds of errors that may come of it

local MIB = 2 ^ 20

local themes = {
  -- Nothing that may cost a result: stops, continuations, signals that are ignored or handled.
  calm = function(batch)
    batch.attacks = { stop_worker = 4, stop_supervisor = 1, stop_host = 1, continue = 6,
      signal_host = 6, signal_workers = 4, signal_supervisor = 3 }
  end,
  kills = function(batch)
    batch.attacks = { kill_worker = 6, stop_worker = 2, continue = 3, signal_host = 2 }
    batch.allow = { worker = true }
  end,
  supervisor = function(batch, random)
    batch.attacks = { stop_supervisor = 4, kill_worker = 3, stop_worker = 2, continue = 2,
      kill_supervisor = random(2) }
    batch.allow = { worker = true, broken = true }
  end,
  host = function(batch)
    batch.attacks = { kill_worker = 2, stop_worker = 1, stop_supervisor = 1, kill_host = 1 }
    batch.allow = { worker = true }
    batch.fatal = true
  end,
  memory = function(batch, random)
    batch.attacks = { kill_worker = 1, signal_host = 1 }
    batch.limits = { [system.RLIMIT_AS] = (600 + 100 * random(10)) * MIB }
    batch.allow = { worker = true, broken = true, encode = true, decode = true, task = true,
      share = true, init = true }
  end,
  descriptors = function(batch, random)
    batch.attacks = { kill_worker = 1, signal_host = 1 }
    batch.limits = { [system.RLIMIT_NOFILE] = 24 + random(16) }
    batch.crowd = 10 + random(30)
    batch.allow = { worker = true, broken = true, task = true, share = true, init = true }
  end,
  processes = function(batch, random)
    batch.attacks = { kill_worker = 4, signal_host = 1 }
    batch.user = system.is_root() and 61000 + random(2000) or nil
    batch.limits = batch.user and { [system.RLIMIT_NPROC] = 3 + random(6) } or {}
    batch.allow = { worker = true, broken = true, init = true }
  end,
  faults = function(batch)
    batch.attacks = { continue = 1, kill_worker = 1, signal_host = 1 }
    batch.faults = true
    batch.allow = { worker = true, broken = true, encode = true, decode = true, task = true,
      share = true, init = true }
  end,
  all = function(batch)
    batch.attacks = { kill_worker = 3, stop_worker = 3, stop_supervisor = 1, stop_host = 1,
      continue = 4, signal_host = 4, signal_workers = 3, signal_supervisor = 2 }
    batch.allow = { worker = true }
  end,
}

local names = { "calm", "calm", "kills", "kills", "supervisor", "host", "memory", "descriptors",
  "processes", "faults", "all", "all" }

--- The batch of this number, of a theme or of the one that comes.
---@param theme? string
---@return chaos.Batch
function plan.batch(seed, number, theme)
  local random = system.generator(seed * 7919 + number * 104729)
  local next_theme = names[random(#names)]
  local batch = { number = number, limits = {}, allow = {}, theme = theme or next_theme }
  batch.rounds = 3 + random(8)
  batch.seed = random(2 ^ 30)
  batch.busy = random(8) == 1
  batch.shower = random(3) == 1 and random(20) / 1000 or nil
  themes[batch.theme](batch, random)
  return batch
end

function plan.is_theme(name) return themes[name] ~= nil end

return plan
