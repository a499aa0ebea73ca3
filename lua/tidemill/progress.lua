--- Progress of a job: a bar on a terminal, a line now and then elsewhere, or a function's business.

local core = require "tidemill.core"

local progress = {}

local BAR = 0.1   -- seconds between two pictures of the bar,
local LINE = 5    -- and between two lines where there is no terminal
local WIDTH = 24

---@class tidemill.Ticker
---@field _label string
---@field _show fun(self, done: integer, failed: integer, total?: integer, final: boolean)
---@field _period number
---@field _from number  when the job started
---@field _next number  when to show it next
local Ticker = {}
local Ticker_mt = { __index = Ticker, __name = "tidemill.Ticker" }

local function count_text(n)
  if n >= 1e7 then return ("%.1fM"):format(n / 1e6) end
  if n >= 1e4 then return ("%.1fk"):format(n / 1e3) end
  return ("%d"):format(n)
end

local function time_text(seconds)
  if seconds < 60 then return ("%.0f s"):format(seconds) end
  if seconds < 3600 then return ("%d:%02d"):format(seconds / 60, seconds % 60) end
  return ("%d:%02d:%02d"):format(seconds / 3600, seconds / 60 % 60, seconds % 60)
end

local function rate_text(rate)
  if rate >= 10 then return count_text(rate) .. "/s" end
  return ("%.2g/s"):format(rate)
end

--- "120/400, 31/s, 9 s left, 2 failed"
local function describe(self, done, failed, total, final)
  local elapsed = core.now() - self._from
  local rate = done / math.max(elapsed, 1e-6)
  local parts = { total and ("%s/%s"):format(count_text(done), count_text(total))
    or count_text(done), rate_text(rate) }
  if final then
    parts[#parts + 1] = "in " .. time_text(elapsed)
  elseif total and done > 0 then
    parts[#parts + 1] = time_text((total - done) / rate) .. " left"
  end
  if failed > 0 then parts[#parts + 1] = failed .. " failed" end
  return table.concat(parts, ", ")
end

local function draw_bar(self, done, failed, total, final)
  local bar = ""
  if total and total > 0 then
    local full = math.floor(done / total * WIDTH)
    bar = ("[%s%s] %3d%% "):format(("#"):rep(full), ("."):rep(WIDTH - full),
      math.floor(done / total * 100))
  end
  io.stderr:write("\r", self._label, bar, describe(self, done, failed, total, final), "\27[K",
    final and "\n" or "")
end

local function print_line(self, done, failed, total, final)
  io.stderr:write(self._label, describe(self, done, failed, total, final), "\n")
end

local function is_wanted(wanted)
  local setting = os.getenv "TIDEMILL_PROGRESS"
  if type(wanted) == "function" then return wanted end
  if setting == "0" or wanted == false then return nil end
  return wanted or (setting == "1" or nil)
end

--- A ticker for a call, if one is wanted.
---@param wanted? boolean|string|fun(done: integer, total?: integer)
---@return tidemill.Ticker?
function progress.new(wanted)
  wanted = is_wanted(wanted)
  if not wanted then return nil end
  local terminal = core.is_terminal(2)
  local show = terminal and draw_bar or print_line
  if type(wanted) == "function" then
    show = function(_, done, _, total) wanted(done, total) end
  end
  local now = core.now()
  local period = (terminal or type(wanted) == "function") and BAR or LINE
  return setmetatable({
    _label = type(wanted) == "string" and wanted .. ": " or "", _show = show, _period = period,
    _from = now, _next = now + period,
  }, Ticker_mt)
end

local function state_of(job, bounded)
  local done, failed, total = core.progress(job)
  return done, failed, bounded and total or nil
end

--- Show where the job is, if it is time to.
---@param job userdata
---@return number seconds  until it is time again
function Ticker:tick(job)
  local now = core.now()
  if now >= self._next then
    self._next = now + self._period
    local done, failed, total = state_of(job, self.bounded)
    self._show(self, done, failed, total, false)
  end
  return self._next - now
end

--- Show the end, once.
---@param job userdata
function Ticker:finish(job)
  if self._finished then return end
  self._finished = true
  local done, failed, total = state_of(job, true)
  self._show(self, done, failed, total, true)
end

return progress
