-- `tidemill -i`: lines are run as they come.

local processes = require "support.processes"
local shell = require "support.shell"

--- What a session prints for these lines, without its prompts.
local function session(lines, options)
  local out, err, status = shell.run(("TIDEMILL -i %s <SCRIPT"):format(options or ""), lines)
  assert.equal(0, status)
  return out:gsub("^> ", ""):gsub("\n>+ ", "\n"):gsub(">+ ", ""):gsub("\n$", ""), err
end

describe("a session", function()
  it("prints the values of expressions, and runs statements", function()
    assert.equal("2\n5\nnil\nab\tnil\n", (session [[
1 + 1
x = 5
x

y
"a" .. "b", nil
]]))
    assert.equal("7\n", (session "= 3 + 4\n"))
  end)

  it("goes on reading until a statement or expression is whole", function()
    assert.equal("1\n2\n10\t20\n9\n", (session [[
for i = 1, 2 do
  print(i)
end
= 10,
  20
function square(x)

  return x * x
end
square(
  3)
]]))
  end)

  it("prompts, again for what goes on", function()
    assert.equal("> >> > 1\n> \n", (shell.run("TIDEMILL -i <SCRIPT", "x = {\n1 }\n=x[1]\n")))
  end)

  it("says what is wrong, with a traceback, and goes on", function()
    local out, err = session [[
x y
error "boom"
error({})
text = { __tostring = function() return "an object" end }
local function f() error(setmetatable({}, text)) end f()
1
]]
    assert.equal("1\n", out)
    for _, text in ipairs { "stdin:1: '=' expected near 'y'", "stdin:1: boom\nstack traceback:",
                            "error object is a table value", "an object" } do
      assert.is_truthy(err:find(text, 1, true), err)
    end
  end)

  it("has pools, and jobs that use its globals", function()
    local out, err = session([[
pool = tidemill.pool(2)
n = 10
function add(x) return x + n end
unpack(pool:map(add, { 1, 2 }))
n = 20
unpack(pool:map(add, { 1, 2 }))
pool:map(function(x) error("no " .. x) end, { 1 })
pool:map("x -> x", { 3 })[1]
]], "-l tidemill")
    assert.equal("11\t12\n21\t22\n3\n", out)
    assert.is_truthy(err:find("stdin:1: no 1 (item 1, worker ", 1, true), err)
  end)

  it("follows -e, -l and the script, and has their globals", function()
    local script = shell.script "b = a + 1 print(...)"
    local out = session("a, b, lpeg.type(lpeg.P(1))\n",
      "-l lpeg -e 'a = 1' " .. script .. " argument")
    assert.equal("argument\n1\t2\tpattern\n", (out:gsub("> ", "")))
    os.remove(script)
    local text, err, status = shell.run("TIDEMILL -i /no/such/script </dev/null")
    assert.equal("", text)
    assert.is_truthy(err:find "^tidemill: cannot open /no/such/script")
    assert.equal(1, status)
  end)

  it("ends with its input, or as os.exit says", function()
    assert.equal(7, select(3, shell.run("TIDEMILL -i <SCRIPT", "io.write 'x' os.exit(7)\n")))
    assert.equal(0, select(3, shell.run "TIDEMILL -i </dev/null"))
  end)
end)

describe("Ctrl-C in a session", function()
  local run

  before_each(function()
    run = { pipe = os.tmpname(), output = os.tmpname(), errors = os.tmpname() }
    os.remove(run.pipe)
    shell.run(("mkfifo %s"):format(run.pipe))
    run.process = io.popen(("setsid -w %s -l tidemill -i <%s >%s 2>%s; echo $?"):format(
      shell.command, run.pipe, run.output, run.errors))
    run.input = assert(io.open(run.pipe, "w"))
  end)

  local function enter(line)
    run.input:write(line, "\n")
    run.input:flush()
  end

  local function await(path, text)
    assert.is_true(processes.eventually(10, function()
      return shell.read(path):find(text, 1, true) ~= nil
    end), shell.read(path) .. shell.read(run.errors))
  end

  --- Interrupt what the session does.
  local function interrupt()
    assert.is_true(processes.kill(-run.pid, processes.SIGINT))
  end

  --- @return integer status
  local function finish()
    run.input:close()
    local status = tonumber(run.process:read "*a")
    run.process:close()
    assert.is_true(processes.eventually(5, function()
      return not processes.is_group_alive(run.pid)
    end), "processes are left")
    for _, name in ipairs { "pipe", "output", "errors" } do os.remove(run[name]) end
    return status
  end

  before_each(function()
    enter [[ffi = require "ffi" ffi.cdef "int getpid(void); int poll(void *, unsigned long, int);"]]
    enter [["pid " .. ffi.C.getpid() .. "."]]
    await(run.output, "pid ")
    await(run.output, ".\n> ")
    run.pid = tonumber(shell.read(run.output):match "pid (%d+)")
    enter "pool = tidemill.pool(2)"
  end)

  it("at the prompt gives a new one", function()
    enter "for i = 1, 2 do"
    await(run.output, ">> ")
    interrupt()
    await(run.output, ">> \n> ")
    enter "'still here'"
    await(run.output, "still here\n")
    assert.equal("", shell.read(run.errors))
    assert.equal(0, finish())
  end)

  local calls = {
    ["a map"] = "pool:map(function() while true do end end, { 1, 2, 3 })",
    ["a map over an endless iterator"] = "pool:map(math.abs, function() return 1 end)",
    ["a loop over imap"] = "for _ in pool:imap(math.abs, function() return 1 end) do end",
    ["a result"] = "pool:submit(function() while true do end end):get()",
    ["another pool in with()"] =
      "tidemill.with(2, function(p) p:apply(function() while true do end end) end)",
    ["a loop that catches it now and then"] = "while true do pcall(error, 'x') end",
  }
  for what, call in pairs(calls) do
    it(("ends %s, and the pool can be used again"):format(what), function()
      enter("io.write 'begun\\n' io.flush() " .. call)
      await(run.output, "begun")
      interrupt()
      await(run.errors, "tidemill: interrupted\n")
      enter "unpack(pool:map('x -> x + 1', { 1, 2 }))"
      await(run.output, "2\t3\n")
      local errors = shell.read(run.errors):gsub("[^\n]*not heard[^\n]*\n", "") -- if it was busy
      assert.equal("tidemill: interrupted\n", errors)
      assert.equal(0, finish())
    end)
  end

  for what, code in pairs { ["at the prompt"] = "x = 1",
                            ["in a loop"] = "while true do pcall(error, 'x') end" } do
    it(("is not all: TERM ends a session %s"):format(what), function()
      enter("io.write 'begun\\n' io.flush() " .. code)
      await(run.output, "begun")
      processes.kill(run.pid, 15)
      assert.is_true(processes.eventually(5, function()
        return not processes.is_group_alive(run.pid)
      end))
      finish()
    end)
  end

  it("that cannot be heard is said so, and a second one ends the session", function()
    enter "io.write 'begun\\n' io.flush() local n = 0 while true do n = n + 1 end"
    await(run.output, "begun")
    interrupt()
    processes.eventually(10, function() return shell.read(run.errors) ~= "" end)
    interrupt()
    local text = shell.read(run.errors)
    if text:find("not heard", 1, true) then
      assert.equal(130, finish())
    else -- it was not compiled yet
      assert.equal("tidemill: interrupted\n", text)
      assert.equal(0, finish())
    end
  end)
end)
