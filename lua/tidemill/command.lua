--- Where the `tidemill` command is: with `start_method = "spawn"` it is executed as the supervisor.

local check = require "tidemill.check"
local core = require "tidemill.core"

local command = {}

local function exists(path)
  local file = path and io.open(path, "rb")
  if file then file:close() end
  return file and path
end

local function directory_of(path)
  return path:match "^(.*)/[^/]*$" or "."
end

--- Beside this module: in a build tree, and where a prefix has bin and lib/lua/5.1, or with a
--- directory more if its libraries are apart by architecture.
local function near_module()
  local module = package.searchpath("tidemill", package.cpath)
  if not module then return nil end
  local directory = directory_of(module)
  return exists(directory .. "/tidemill") or exists(directory .. "/../../../bin/tidemill")
    or exists(directory .. "/../../../../bin/tidemill")
end

local function on_path()
  for directory in (os.getenv "PATH" or ""):gmatch "[^:]+" do
    local found = exists(directory .. "/tidemill")
    if found then return found end
  end
end

--- The path of the command: TIDEMILL_COMMAND, this very program, beside the module, on PATH.
---@param where string   the function to name if there is none
---@param level integer  as for error()
---@return string
function command.find(where, level)
  local program = core.program()
  local itself = program and program:match "/tidemill$" and program
  local found = exists(os.getenv "TIDEMILL_COMMAND") or itself or near_module() or on_path()
  if not found then
    check.fail(where, "start_method 'spawn' needs the tidemill command: set TIDEMILL_COMMAND",
      level + 1)
  end
  return found
end

return command
