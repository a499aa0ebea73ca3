-- Every Lua block of the README is a job script; the text block after it is what it prints.

local command = assert(os.getenv "TIDEMILL_COMMAND", "TIDEMILL_COMMAND must name the command")

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function blocks(text)
  local found, last = {}, nil
  for language, body in text:gmatch "```(%a+)\n(.-)```" do
    if language == "lua" then
      last = { code = body }
      found[#found + 1] = last
    elseif language == "text" and last then
      last.output = body
      last = nil
    end
  end
  return found
end

local function run(code)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(code)
  file:close()
  local process = assert(io.popen(("%s %s 2>&1; echo status $?"):format(command, path)))
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
      assert.equal(assert(block.output, "no text block follows") .. "status 0\n", run(block.code))
    end)
  end
end)
