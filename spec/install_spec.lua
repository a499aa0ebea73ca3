-- What an installation into a prefix of its own consists of, and that others can use it.

local shell = require "support.shell"

local HERE = shell.run "pwd":match "[^\n]+"
local VERSION = require "tidemill"._VERSION:match "%d+%.%d+%.%d+"

--- Run a shell line in the prefix, which must succeed without a word of complaint.
---@return string stdout
local function run(prefix, line)
  local out, err, status = shell.run(("cd '%s' && unset LUA_CPATH LUA_PATH TIDEMILL_COMMAND\n%s")
    :format(prefix, line))
  assert.equal("", err)
  assert.equal(0, status, out)
  return out
end

local function has(prefix, path)
  return (io.open(prefix .. "/" .. path) or error("not installed: " .. path, 2)):close()
end

-- Programs that load a sanitized library would have to be sanitized, too.
if (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) then return end

describe("an installation", function()
  local prefix
  local library_directory = "lib"

  setup(function()
    prefix = shell.run "mktemp -d":match "[^\n]+"
    shell.run(("cmake --install '%s' --prefix '%s'"):format(shell.build, prefix))
    if not pcall(has, prefix, "lib/libtidemill.a") then -- configured for /usr, as Debian has it
      library_directory = run(prefix, "echo lib/*-linux-gnu"):match "[^\n]+"
    end
  end)

  teardown(function() shell.run(("rm -rf '%s'"):format(prefix)) end)

  it("has the command, the libraries, the header and the module", function()
    for _, path in ipairs { "bin/tidemill", "include/tidemill.h" } do has(prefix, path) end
    for _, name in ipairs { "libtidemill.so", "libtidemill.so.0", "libtidemill.a",
                            "pkgconfig/tidemill.pc", "lua/5.1/tidemill.so" } do
      has(prefix, library_directory .. "/" .. name)
    end
  end)

  it("names no path of the machine that built it", function()
    assert.equal("", run(prefix, ("grep -rlF -e '%s' -e '%s' . || true"):format(HERE, shell.build)))
  end)

  it("has a command that runs, in any start method", function()
    local script = [[require("tidemill").with({ processes = 2, start_method = "%s" }, function(pool)
      print(unpack(pool:map("x -> x + 1", { 1, 2 }))) end)]]
    for _, method in ipairs { "fork", "spawn" } do
      assert.equal("2\t3\n", run(prefix, ("bin/tidemill -e '%s'"):format(script:format(method))))
    end
  end)

  it("has a module for a stock luajit, which finds the command for spawn", function()
    local out = run(prefix, ([[LUA_CPATH="$PWD/%s/lua/5.1/?.so;;" luajit -e '
      local tidemill = require "tidemill"
      tidemill.with({ processes = 2, start_method = "spawn" }, function(pool)
        print(unpack(pool:map("x -> x + 1", { 1, 2 })))
      end)']]):format(library_directory))
    assert.equal("2\t3\n", out)
  end)

  it("serves find_package, shared and static", function()
    run(prefix, ([[cmake -S '%s/spec/consumer' -B consumer -DCMAKE_PREFIX_PATH="$PWD" >log &&
      cmake --build consumer >log]]):format(HERE))
    for _, form in ipairs { "tidemill", "tidemill_static" } do
      assert.equal(VERSION .. " 4 9 16\n", run(prefix, "consumer/with_" .. form))
    end
    local needed = "readelf -d consumer/with_%s | grep -c 'NEEDED.*libtidemill.so.0' || true"
    assert.equal("1\n", run(prefix, needed:format "tidemill"))
    assert.equal("0\n", run(prefix, needed:format "tidemill_static"))
  end)

  --- Build host.c by pkg-config, from this prefix, and run it.
  local function host(root, options)
    local script = ([[
      export PKG_CONFIG_PATH="$PWD/%s/%s/pkgconfig"
      cc -o host '%s/spec/consumer/host.c' -Wl,--export-dynamic \
        $(pkg-config --cflags --libs luajit) $(pkg-config --cflags --libs %s tidemill)
      LD_LIBRARY_PATH="$PWD/%s/%s" ./host]]):format(root, library_directory, HERE, options, root,
      library_directory)
    assert.equal(VERSION .. " 4 9 16\n", run(prefix, script))
  end

  it("serves pkg-config, shared and static, also where it was moved to", function()
    host(".", "")
    run(prefix, ("mkdir moved && cp -r --parents include %s moved && rm moved/%s/libtidemill.so*")
      :format(library_directory, library_directory))
    host("moved", "--static")
  end)

  it("has a manual page without mistakes, which knows every option and variable", function()
    local page = "share/man/man1/tidemill.1"
    assert.equal("", run(prefix, "groff -mandoc -Tutf8 -ww -z " .. page))
    local manual = run(prefix, "groff -mandoc -Tascii -P-c -P-bou " .. page)
    local help, count = shell.run "TIDEMILL -h", 0
    for option in help:gmatch "\n  (%-%-?%a+)" do
      count = count + 1
      assert.is_truthy(manual:find("\n     [%a%-, ]*" .. option:gsub("%-", "%%-") .. "[^%a]"),
        option .. " is not in the manual page")
    end
    assert.is_true(count >= 8)
    for variable in help:gmatch "TIDEMILL_%u+" do
      assert.is_truthy(manual:find("\n     " .. variable, 1, true), variable)
    end
  end)

  it("has examples that run", function()
    assert.equal("the library and the lambda agree\n",
      run(prefix, "bin/tidemill share/doc/tidemill/examples/powers.lua | tail -n 1"))
  end)

  it("has a file for editors with every public function, each with its description", function()
    local text = shell.read(prefix .. "/share/tidemill/library/tidemill.lua")
    assert.is_function(loadstring(text))
    assert.is_truthy(text:find "^%-%-%-@meta")
    assert.is_nil(text:find "%-%-%-@field _")
    local function check(owner, sign, methods)
      for name, value in pairs(methods) do
        if type(value) == "function" and not name:find "^_" then
          local at = text:find(("\nfunction %s%s%s("):format(owner, sign, name), 1, true)
          assert.is_truthy(at, owner .. sign .. name .. " is missing")
          assert.is_truthy(text:sub(1, at):find "\n%-%-%-[^\n]*\n$", owner .. sign .. name)
        end
      end
    end
    local tidemill = require "tidemill"
    local pool = tidemill.pool(1)
    local function methods_of(object) return getmetatable(object).__index end
    check("tidemill", ".", tidemill)
    check("Pool", ":", methods_of(pool))
    check("Result", ":", methods_of(pool:submit(math.abs, 1)))
    check("Stream", ":", methods_of(pool:imap(math.abs, { 1 })))
    for class in text:gmatch "tidemill%.%u%w*" do
      assert.is_truthy(text:find("%-%-%-@%a+ " .. class:gsub("%p", "%%%0") .. "[ \n]"), class)
    end
    pool:terminate()
  end)
end)

describe("the module, in a Lua that it cannot run in,", function()
  --- The one line that a program says when it requires the module from the build tree.
  local function refusal(program, code)
    local line = [[%s -e 'package.cpath = "%s/?.so" %s require "tidemill"']]
    local out, err, status = shell.run(line:format(program, shell.build, code))
    assert.equal("", out)
    assert.equal(1, status)
    return err:match "[^\n]+"
  end

  it("says that PUC Lua is not enough", function()
    assert.equal("lua5.1: tidemill needs LuaJIT 2.1 or later, and this is Lua 5.1",
      refusal("lua5.1", ""))
  end)

  it("says that it needs the ffi library", function()
    assert.is_truthy(refusal("luajit", "package.preload.ffi = function() error \"no ffi\" end")
      :find("tidemill needs LuaJIT with its ffi library: .*no ffi"))
  end)
end)
