-- The rockspec: `luarocks make` in the tree gives the module and the command.

local shell = require "support.shell"

if (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) then return end

describe("luarocks make", function()
  it("installs the module and the command, without a network", function()
    local directory = shell.run "mktemp -d":match "[^\n]+"
    local out, err, status = shell.run(([[
      unset LUA_PATH LUA_CPATH TIDEMILL_COMMAND http_proxy https_proxy
      cp -r CMakeLists.txt tidemill-scm-1.rockspec src lua scripts doc '%s' && cd '%s' || exit
      export CMAKE_BUILD_TYPE=Debug # faster to compile
      luarocks --lua-version=5.1 --tree="$PWD/rocks" make --only-server=/none >log 2>&1 ||
        { tail log; exit 1; }
      eval "$(luarocks --lua-version=5.1 --tree="$PWD/rocks" path)"
      luajit -e 'local tidemill = require "tidemill"
        for _, method in ipairs { "fork", "spawn" } do
          tidemill.with({ processes = 2, start_method = method }, function(pool)
            print(unpack(pool:map("x -> x + 1", { 1, 2 })))
          end)
        end'
      rocks/bin/tidemill -e 'print "the command"']]):format(directory, directory))
    shell.run(("rm -rf '%s'"):format(directory))
    assert.equal("2\t3\n2\t3\nthe command\n", out)
    assert.equal("", err)
    assert.equal(0, status)
  end)
end)
