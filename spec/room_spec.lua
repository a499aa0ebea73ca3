-- Values near and beyond what fits into shared memory: an error that names sizes, and a pool that
-- goes on. Address space is limited, so that little is much.

local shell = require "support.shell"

local LIMIT_MB, LARGE_MB = 1500, 230

-- A sanitizer takes all of the address space for itself.
local sanitized = (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true)

local prelude = ([[
  local tidemill = require "tidemill"
  local pool = tidemill.pool(2)
  local LARGE = %d * 2 ^ 20
  local function check(what, f, ...)
    local ok, err = pcall(f, ...)
    local message = ok and "" or type(err) == "table" and err.message or tostring(err)
    print(what, ok, type(err) == "table" and err.kind or "", message:sub(1, 100))
    collectgarbage()
    local texts = pool:map(function(x) return ("x"):rep(1e6):sub(x) end, tidemill.range(1, 20), 3)
    assert(#texts == 20 and #texts[20] == 1e6 - 19)
  end
]]):format(LARGE_MB)

--- Run a script in little address space: its lines, each "what", "true" or kind and message.
local function run(text)
  local out, err = shell.run_alone(("ulimit -v %d; TIDEMILL SCRIPT"):format(LIMIT_MB * 1024),
    prelude .. text)
  assert.equal("", err)
  local found = {}
  for what, ok, kind, message in out:gmatch "([^\t\n]+)\t(%l+)\t([^\t]*)\t([^\n]*)\n" do
    found[what] = { ok = ok == "true", kind = kind, message = message }
  end
  return found
end

describe("too much", function()
  if sanitized then return end

  it("of anything is refused with sizes, and the pool goes on", function()
    local found = run [[
      local text = ("x"):rep(LARGE / 2)
      text = text .. text
      check("item", pool.map, pool, "s -> #s", { "a", text, "b" }, 1)
      check("chunk", pool.map, pool, "s -> #s", { "a", text, "b" }, 3)
      check("argument", pool.apply, pool, "s -> #s", { text })
      check("stream", function() for _ in pool:imap("s -> #s", { text }) do end end)
      check("upvalue", pool.apply, pool, function() return #text end)
      check("initargs", tidemill.pool, { initializer = function() end, initargs = { text } })
      text = nil
      collectgarbage()
      local function make(letter, n)
        collectgarbage() -- of what was refused before
        return letter:rep(n)
      end
      check("result", pool.apply, pool, make, { "y", LARGE })
      check("results", pool.starmap, pool, make, { { "y", LARGE }, { "y", LARGE } }, 2)
      check("error", pool.apply, pool, function(n) error(make("z", n), 0) end, { LARGE })
      check("value raised", pool.apply, pool, function(n) error { make("z", n) } end, { LARGE })]]
    for _, what in ipairs { "item", "chunk", "argument", "stream", "upvalue", "initargs", "result",
      "results", "error", "value raised" } do
      assert.is_table(found[what], what)
      assert.is_false(found[what].ok, what)
    end
    for what, pattern in pairs {
      item = "item 2: no room left in %d+ MB", chunk = "item 2: no room left in %d+ MB",
      argument = "no room left in %d+ MB", stream = "item 1: no room left in %d+ MB",
      upvalue = "no room for %d+ bytes in %d+ MB",
      result = "no room for %d+ bytes in %d+ MB",
      results = "no room for %d+ bytes in %d+ MB",
    } do
      assert.equal("encode", found[what].kind)
      assert.is_truthy(found[what].message:find(pattern), found[what].message)
    end
    assert.equal("task", found.error.kind)
    assert.equal(("z"):rep(100), found.error.message)
    assert.equal("task", found["value raised"].kind)
  end)

  it("in all is taken piece by piece", function()
    local found = run [[
      local text = ("x"):rep(LARGE / 8)
      check("map", pool.map, pool, "s -> #s", { text, text, text, text, text, text, text, text,
        text, text, text, text }, 1)
      check("results", function()
        local n = 0
        for _, s in pool:imap(function(n) return ("y"):rep(n) end, function() return LARGE / 8 end)
        do
          n = n + 1
          assert(#s == LARGE / 8)
          if n == 15 then break end
        end
      end)]]
    assert.is_true(found.map.ok, found.map.message)
    assert.is_true(found.results.ok, found.results.message)
  end)
end)
