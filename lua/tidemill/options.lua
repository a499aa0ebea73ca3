--- Options of pools and of calls: what there is, and what it may be.

local check = require "tidemill.check"
local core = require "tidemill.core"

local options = {}

---@class tidemill.PoolOptions
---@field processes? integer     workers; `tidemill.cpu_count()` when omitted
---@field initializer? function  run in every worker before its first task, replacements too
---@field initargs? any[]        its arguments
---@field preload? string[]      modules that every worker requires first
---@field maxtasksperchild? integer  items after which a worker is replaced by a fresh one
---@field start_method? "fork"|"spawn"
---@field timeout? number        seconds per item; default for the calls, like the next four
---@field retries? integer
---@field retry_errors? integer
---@field chunksize? integer
---@field buffer? integer
---@field inherit? boolean       workers are copies of the script's state as it is now
---@field memory_limit? integer  bytes of Lua heap per worker; beyond, "not enough memory" is raised
---@field max_rss? integer       bytes of private memory that a worker may take after its start; one
---                               that has more is replaced between items
---@field seed? integer          random numbers of their own for every item
---@field name? string

---@class tidemill.ProcessOptions  as those of a pool
---@field name? string
---@field start_method? "fork"|"spawn"
---@field inherit? boolean
---@field memory_limit? integer

---@class tidemill.CallOptions
---@field chunksize? integer    items a worker takes at a time; adapts to about 1 ms when omitted
---@field errors? "raise"|"collect"
---@field timeout? number       seconds an item may take: then its worker is killed
---@field retries? integer      further tries of an item lost with its worker, or timed out
---@field retry_errors? integer further tries of an item that raised
---@field buffer? integer       items the input may be ahead of the consumer; 4 chunks per worker
---@field progress? boolean|string|fun(done: integer, total?: integer)
---@field callback? fun(value: any, ...)       in the host, when the result is ready
---@field error_callback? fun(err: tidemill.Error)

local EXACT = 2 ^ 53 -- whole numbers up to here are exact

local function count_from(least)
  return function(where, name, value, level) check.count(where, name, value, least, level + 1) end
end

local function of_type(types)
  return function(where, name, value, level) check.type(where, name, value, types, level + 1) end
end

local function seconds(where, name, value, level)
  if type(value) ~= "number" or value ~= value or value <= 0 then
    check.fail(where, ("%s must be a positive number of seconds, got %s"):format(name,
      check.describe(value)), level + 1)
  end
end

local HEAP_LEAST = 2 ^ 20 -- a worker that has run nothing takes a tenth of it

local function heap(where, name, value, level)
  if type(value) ~= "number" or value ~= value or value < HEAP_LEAST or value > EXACT then
    check.fail(where, ("%s must be a number of bytes from %d, got %s"):format(name, HEAP_LEAST,
      check.describe(value)), level + 1)
  end
end

local function size(where, name, value, level)
  if type(value) ~= "number" or value ~= value or value < 1 or value > EXACT then
    check.fail(where, ("%s must be a number of bytes, got %s"):format(name,
      check.describe(value)), level + 1)
  end
end

local function whole(where, name, value, level)
  if type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) > EXACT then
    check.fail(where, ("%s must be a whole number, got %s"):format(name,
      check.describe(value)), level + 1)
  end
end

local function one_of(...)
  local allowed = { ... }
  return function(where, name, value, level)
    for _, known in ipairs(allowed) do
      if value == known then return end
    end
    check.fail(where, ("%s must be '%s', got %s"):format(name, table.concat(allowed, "' or '"),
      check.describe(value)), level + 1)
  end
end

local function names(where, name, value, level)
  check.type(where, name, value, "table", level + 1)
  for i, element in ipairs(value) do
    check.type(where, ("%s[%d]"):format(name, i), element, "string", level + 1)
  end
end

local function processes(where, name, value, level)
  check.count(where, name, value, 1, level + 1)
  if value > core.WORKERS_MAX then
    check.fail(where, ("%s must be at most %d"):format(name, core.WORKERS_MAX), level + 1)
  end
end

-- Defaults for the calls of a pool are options of the pool.
local defaults = {
  timeout = seconds, retries = count_from(0), retry_errors = count_from(0),
  chunksize = count_from(1), buffer = count_from(1),
}

local pool_rules = {
  processes = processes, initializer = of_type "function", initargs = of_type "table",
  preload = names, maxtasksperchild = count_from(1), start_method = one_of("fork", "spawn"),
  inherit = of_type "boolean", memory_limit = heap, max_rss = size, seed = whole,
  name = of_type "string",
}

local process_rules = {
  name = of_type "string", start_method = pool_rules.start_method,
  inherit = of_type "boolean", memory_limit = heap,
}

local call_rules = {
  errors = one_of("raise", "collect"), progress = of_type "boolean/string/function",
  callback = of_type "function", error_callback = of_type "function",
}

for name, rule in pairs(defaults) do pool_rules[name], call_rules[name] = rule, rule end

local function check_rules(where, given, rules, level)
  check.keys(where, given, rules, level + 1)
  for name, value in pairs(given) do rules[name](where, name, value, level + 1) end
end

local function check_way(where, given, level)
  if given.inherit and given.start_method == "spawn" then
    check.fail(where, "inherit needs start_method 'fork'", level + 1)
  end
end

local function default_processes(where, level)
  if core.worker() then return 1 end
  local wanted = os.getenv "TIDEMILL_PROCESSES"
  if not wanted or wanted == "" then return core.cpu_count() end
  local number = tonumber(wanted)
  if not number or number < 1 or number % 1 ~= 0 then
    check.fail(where, ("TIDEMILL_PROCESSES must be a whole number from 1, got '%s'"):format(wanted),
      level + 1)
  end
  return number
end

--- The options of a new pool, checked and complete.
---@param given? integer|tidemill.PoolOptions
---@param where string   the function to name in errors
---@param level integer  as for error()
---@return tidemill.PoolOptions
function options.for_pool(given, where, level)
  local normal = {}
  if given ~= nil and type(given) ~= "number" then
    check.type(where, "options", given, "table/number/nil", level + 1)
    for key, value in pairs(given) do normal[key] = value end
  else
    normal.processes = given
  end
  if normal.processes == nil then normal.processes = default_processes(where, level + 1) end
  check_rules(where, normal, pool_rules, level + 1)
  check_way(where, normal, level + 1)
  if normal.initargs and not normal.initializer then
    check.fail(where, "initargs are for an initializer, and there is none", level + 1)
  end
  normal.name = normal.name or "pool"
  return normal
end

--- The options of a new process, checked.
---@param given? tidemill.ProcessOptions
---@param where string
---@param level integer
---@return tidemill.ProcessOptions
function options.for_process(given, where, level)
  local normal = {}
  check.type(where, "options", given, "table/nil", level + 1)
  for key, value in pairs(given or {}) do normal[key] = value end
  check_rules(where, normal, process_rules, level + 1)
  check_way(where, normal, level + 1)
  return normal
end

--- What a pool remembers as defaults for its calls.
---@param given tidemill.PoolOptions
---@return table
function options.defaults_of(given)
  local kept = {}
  for name in pairs(defaults) do kept[name] = given[name] end
  return kept
end

--- Does a table look like the options of a call?
---@return boolean
function options.are_for_call(given)
  if type(given) ~= "table" or next(given) == nil then return false end
  for name in pairs(given) do
    if not call_rules[name] then return false end
  end
  return true
end

--- The options of a call, checked; missing ones are the pool's defaults.
---@param given? integer|tidemill.CallOptions  a chunk size, or options
---@param inherited table
---@param where string
---@param level integer
---@return tidemill.CallOptions
function options.for_call(given, inherited, where, level)
  if given == nil then return inherited end
  if type(given) == "number" then given = { chunksize = given } end
  check.type(where, "options", given, "table/number/nil", level + 1)
  check_rules(where, given, call_rules, level + 1)
  if next(inherited) == nil then return given end
  local all = {}
  for name, value in pairs(inherited) do all[name] = value end
  for name, value in pairs(given) do all[name] = value end
  return all
end

return options
