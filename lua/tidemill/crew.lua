--- How the workers of a pool start: what they are given, and what they have of their own.

local command = require "tidemill.command"
local core = require "tidemill.core"
local errors = require "tidemill.errors"

local crew = { classes = {} } -- registered metatables by name; every new worker gets them

local live = setmetatable({}, { __mode = "k" }) -- pools of this process

--- What the script's pools need now and then while it waits for something else: what has come in is
--- taken in, what waits is handed out.
function crew.attend()
  for handle in pairs(live) do
    if not pcall(core.step, handle) then live[handle] = nil end -- of whom this is a copy
  end
end

local hidden_now -- what the codec hides at the moment

--- Have the codec leave these globals to the workers; nil for none.
---@param names? table<string, true>
function crew.hide(names)
  if names ~= hidden_now then
    core.hide_globals(names)
    hidden_now = names
  end
end

--- What a worker starts with: see the top of src/lua/worker.c; and what keeps the shared objects
--- in it.
local function config_of(given)
  local where = {
    path = package.path, cpath = package.cpath, cwd = core.cwd(),
    preload = given.preload, name = given.name,
    classes = not given.inherit and crew.classes or nil,
    maxtasksperchild = given.maxtasksperchild, max_rss = given.max_rss,
    memory_limit = given.memory_limit,
  }
  local args = given.initargs or {}
  crew.hide(nil)
  core.plain_classes(true)
  local ok, head = pcall(core.message, where)
  core.plain_classes(false)
  if not ok then error(head, 0) end
  local start, keeper = core.message(given.initializer, unpack(args, 1, args.n or #args))
  return head .. start, keeper
end

local function raise_start(failure, what)
  if type(failure) == "table" then
    failure.kind = "init"
    error(errors.new(failure), 0)
  end
  local message = ("cannot start the %s: %s"):format(what, failure)
  error(errors.new { kind = "broken", message = message }, 0)
end

--- Wait until every worker has done what it starts with. A signal's Lua handler runs between two
--- rounds, so that also an initializer that never ends can be interrupted.
local function await_start(handle, what)
  local is_up, failure
  repeat is_up, failure = core.await_start(handle) until is_up ~= false
  if not is_up then raise_start(failure, what) end
end

--- The script's globals, which workers that inherit them need not be sent.
local function all_globals(names)
  for name in pairs(_G) do
    if type(name) == "string" then names[name] = true end
  end
  return names
end

local function copy(set)
  local names = {}
  for name in pairs(set) do names[name] = true end
  return names
end

--- Start the workers of a new pool. Raises kind `"init"` or `"broken"`.
---@param given tidemill.PoolOptions  checked and complete
---@param where string   the function to name in errors
---@param level integer  as for error()
---@param single? string  what to call it, if it is one worker for one job, which is not replaced
---@return userdata handle
---@return table<string, true>? hidden  globals that are not sent: the workers have their own
function crew.start(given, where, level, single)
  local brought = core.brought_globals()
  local hidden = brought and copy(brought)
  if given.initializer then
    hidden = hidden or {}
    core.assigned_globals(given.initializer, hidden)
  end
  local way = given.inherit and "inherit" or given.start_method or "fork"
  if way == "inherit" then
    hidden = all_globals(hidden or {})
  else
    local ok, failure = core.start(way == "spawn" and command.find(where, level + 1) or nil)
    if not ok then raise_start(failure, single or "pool") end
  end
  local config, keeper = config_of(given)
  local what = single or "pool"
  local handle, failure =
    core.open(given.processes or 1, config, way, given.name, keeper, single ~= nil)
  if not handle then raise_start(failure, what) end
  live[handle] = true
  local has_to_start = given.initializer ~= nil or given.preload ~= nil or brought ~= nil
  if has_to_start then await_start(handle, what) end
  if given.seed then core.seed(handle, given.seed) end
  return handle, hidden
end

return crew
