rockspec_format = "3.0"
package = "tidemill"
version = "scm-1"
source = { url = "git+file://." } -- `luarocks make` builds the tree that it is run in
description = {
  summary = "Parallel compute, scripted in Lua",
  detailed = [[
    Runs functions of a Lua script for many items at once, in a pool of worker processes with a
    LuaJIT each. Functions travel with what they use, a worker that dies costs one item, and results
    come back in order.]],
  license = "MIT",
}
supported_platforms = { "linux" }
-- It takes LuaJIT 2.1, which LuaRocks counts as Lua 5.1. LPeg is not listed: distributions have it
-- where LuaRocks does not see it, and it would be fetched for nothing.
dependencies = { "lua == 5.1" }
build = {
  type = "command",
  build_command = [[
    cmake -S . -B build/rock -DTIDEMILL_TESTS=OFF &&
    cmake --build build/rock --parallel 4 --target tidemill_module --target tidemill_command]],
  install_command = [[
    cmake -E copy build/rock/tidemill.so "$(LIBDIR)" &&
    cmake -E copy build/rock/tidemill "$(BINDIR)"]],
}
