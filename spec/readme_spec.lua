-- Every Lua block of the README is a job script, and every C block a program; the text block after
-- it is what it prints.

local command = assert(os.getenv "TIDEMILL_COMMAND", "TIDEMILL_COMMAND must name the command")
local build = assert(os.getenv "TIDEMILL_BUILD", "TIDEMILL_BUILD must name the build tree")

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function blocks(text)
  local found, last = {}, nil
  for language, body in text:gmatch "```(%a+)\n(.-)```" do
    if language == "lua" or language == "c" then
      last = { code = body, language = language }
      found[#found + 1] = last
    elseif language == "text" and last then
      last.output = body
      last = nil
    end
  end
  return found
end

-- Of the header and the library as they were built, which a sanitizer may be in.
local program = ([[
  unset LD_PRELOAD
  cc -x c -Wall -Wextra -Werror SANITIZE -Isrc PATH -o PATH.out -LBUILD -ltidemill \
    -Wl,-rpath,BUILD && PATH.out
  status=$?
  rm -f PATH.out
  (exit $status)]]):gsub("BUILD", build):gsub("SANITIZE",
  (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) and "-fsanitize=address,undefined" or "")

local function run(code, language)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(code)
  file:close()
  local line = language == "c" and program:gsub("PATH", path) or command .. " " .. path
  local process = assert(io.popen(("{ %s\n} 2>&1; echo status $?"):format(line)))
  local output = process:read "*a"
  process:close()
  os.remove(path)
  return output
end

describe("README", function()
  local found = blocks(read "README.md")

  it("has a tour", function() assert.is_true(#found >= 6) end)

  for i, block in ipairs(found) do
    it(("block %d prints what it says"):format(i), function()
      assert.equal(assert(block.output, "no text block follows") .. "status 0\n",
        run(block.code, block.language))
    end)
  end
end)
