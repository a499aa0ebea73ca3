-- The library as a C program finds it: its header, its symbols, and an example that is built
-- against an installation, in each way that there is. What it does is told by the programs in
-- spec/embed, which ctest runs.

local shell = require "support.shell"

local HEADERS = { "src/tidemill.h", "src/tidemill_mill.h" }
local IS_SANITIZED = (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) ~= nil

--- Run a shell line, which must succeed without a word of complaint.
---@return string stdout
local function run(line, text)
  local out, err, status = shell.run("unset LUA_CPATH LUA_PATH LD_PRELOAD\n" .. line, text)
  assert.equal("", err)
  assert.equal(0, status, out)
  return out
end

describe("the public header", function()
  local use = [[
#include <tidemill.h>
#include <tidemill.h>
int main(void) { struct tide_error err; return tide_start(0, 0, &err); }
]]

  for _, way in ipairs { "cc -x c -std=c99", "cc -x c -std=c11", "clang -x c -std=c11",
                         "clang -x c++ -std=c++11", "clang -x c++ -std=c++20" } do
    it("compiles without a warning by " .. way, function()
      run(way .. " -fsyntax-only -Wall -Wextra -Wpedantic -Werror -Isrc SCRIPT", use)
    end)
  end

  it("shows a program that does what it says", function()
    local body = shell.read "src/tidemill.h":match "\n %* *\n( %*     struct tide_error.-)\n %*\n"
    body = body:gsub("\n %*", "\n"):sub(3)
    local text = ('#include <stdio.h>\n#include <tidemill.h>\nint main(void)\n{\n%s\n'
      .. 'for (int i = 0; i < 4; i++) printf("%%g ", squares[i]);\n'
      .. 'tide_args_free(items);\ntide_mill_free(mill);\nreturn 0; }\n'):format(body)
    local directory = run "mktemp -d":match "[^\n]+"
    local build = ("cp SCRIPT %s/x.c && cc -Wall -Wextra -Werror %s -Isrc -o %s/x %s/x.c -L%s "
      .. "-ltidemill -Wl,-rpath,%s && %s/x; rm -r %s"):format(directory,
      IS_SANITIZED and "-fsanitize=address,undefined" or "", directory, directory, shell.build,
      shell.build, directory, directory)
    assert.equal("1 4 9 16 ", run(build, text))
  end)
end)

describe("the libraries", function()
  local declared = { "luaopen_tidemill" }
  for _, path in ipairs(HEADERS) do
    local text = shell.read(path):gsub("/%*.-%*/", "")
    for declaration in text:gmatch "\nTIDE_API[^;]+;" do
      declared[#declared + 1] = declaration:match "(tide_[%w_]+)%("
    end
  end
  table.sort(declared)

  local function symbols(line)
    local names = {}
    for name in run(line):gmatch "[^\n]+" do names[#names + 1] = name end
    table.sort(names)
    return names
  end

  it("show what the header declares, and nothing else", function()
    assert.is_true(#declared > 40)
    local shown = symbols(("nm -D --defined-only %s/libtidemill.so | cut -d' ' -f3")
      :format(shell.build))
    if IS_SANITIZED then -- the sanitizer has its own
      for i = #shown, 1, -1 do
        if not shown[i]:find "^tide_" and not shown[i]:find "^luaopen_" then
          table.remove(shown, i)
        end
      end
    end
    assert.same(declared, shown)
    assert.same(declared, symbols(("readelf -sW %s/libtidemill.a | awk '$5 == \"GLOBAL\" && "
      .. "$6 == \"DEFAULT\" && $7 != \"UND\" { print $8 }' | grep -v __asan || true")
      :format(shell.build)))
  end)

  it("leave the module what require looks for", function()
    assert.same({ "luaopen_tidemill" }, symbols(
      ("nm -D --defined-only %s/tidemill.so | cut -d' ' -f3"):format(shell.build)))
  end)
end)

-- Programs that link with a sanitized library would have to be sanitized, too.
if IS_SANITIZED then return end

describe("examples/embed", function()
  local EXPECTED = [[
  1    0.0  -
  2   70.0  nearly a known name, at night
  3   40.5  large, abroad
  4      -  a rule crashed: signal 11
  5      -  rules.lua:16: attempt to compare number with string
  6  110.5  large, nearly a known name, at night, abroad
  7    0.0  -
]]
  local prefix, libraries

  setup(function()
    prefix = run "mktemp -d":match "[^\n]+"
    run(("cmake --install '%s' --prefix '%s' && cp -r examples/embed '%s/rules'"):format(
      shell.build, prefix, prefix))
    libraries = run(("dirname $(find '%s' -name libtidemill.a)"):format(prefix)):match "[^\n]+"
  end)
  teardown(function() run(("rm -rf '%s'"):format(prefix)) end)

  local function check(program)
    local out = run(("cd '%s/rules' && LD_LIBRARY_PATH='%s' %s rules.lua records.csv"):format(
      prefix, libraries, program))
    assert.equal(EXPECTED, out)
  end

  local function uses_shared(program)
    return run(("readelf -d '%s/rules/%s' | grep -c 'NEEDED.*libtidemill' || true"):format(prefix,
      program)) == "1\n"
  end

  it("is built by find_package, shared and static", function()
    run(("cd '%s/rules' && cmake -S . -B build -DCMAKE_PREFIX_PATH='%s' >log && "
      .. "cmake --build build >log"):format(prefix, prefix))
    check "build/rules"
    check "build/rules_static"
    assert.is_true(uses_shared "build/rules")
    assert.is_false(uses_shared "build/rules_static")
  end)

  it("is built by make and pkg-config, shared and static", function()
    run(("cd '%s/rules' && PKG_CONFIG_PATH='%s/pkgconfig' make -s rules rules_static"):format(
      prefix, libraries))
    check "./rules"
    check "./rules_static"
    assert.is_true(uses_shared "rules")
    assert.is_false(uses_shared "rules_static")
  end)

  it("says what is wrong, and with which file", function()
    local function fails(arguments)
      local out, err, status = shell.run(("cd '%s/rules' && ./rules_static %s"):format(prefix,
        arguments))
      assert.equal("", out)
      assert.equal(1, status)
      return err
    end
    assert.is_truthy(fails "absent.lua records.csv":find("absent.lua", 1, true))
    assert.is_truthy(fails "rules.lua absent.csv":find("absent.csv", 1, true))
    assert.is_truthy(fails "records.csv records.csv":find("records.csv:2:", 1, true))
  end)
end)
