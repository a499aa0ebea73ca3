--- What a script may give as the function of a job: a function, a lambda as a string, or the name
--- of a function in a module.
---
---     "x -> x * x"    "x, y -> x + y, x - y"    "... -> select('#', ...)"    "() -> os.time()"
---     "my.module:work"

local functions = {}

local LAMBDAS_MAX = 256 -- kept by their text, so that the same text is the same function

local grammar

--- parameters -> expressions; the expressions are Lua's to parse.
local function make_grammar()
  local lpeg = require "lpeg"
  local P, R, S, C, Ct, Cp = lpeg.P, lpeg.R, lpeg.S, lpeg.C, lpeg.Ct, lpeg.Cp
  local space = S " \t\r\n" ^ 0
  local letter, digit = R("az", "AZ") + "_", R "09"
  local name = letter * (letter + digit) ^ 0
  local parameter = C(name) * space
  local dots = C(P "...") * space
  local list = (parameter * (P "," * space * parameter) ^ 0 * (P "," * space * dots) ^ -1) + dots
  local parameters = P "(" * space * Ct(list ^ -1) * P ")" * space + Ct(list)
  local lambda = space * parameters * P "->" * space * Cp() * C(P(1) ^ 1)
  local path = C(name * (P "." * name) ^ 0) * P ":" * C(name) * -P(1)
  return { lambda = lambda, path = path }
end

local lambdas, lambda_count = {}, 0

local function make_lambda(text)
  local parameters, _, body = grammar.lambda:match(text)
  if not parameters then
    return nil, "it is neither 'PARAMETERS -> EXPRESSIONS' nor 'MODULE:FUNCTION'"
  end
  local source = ("return function(%s) return %s\nend"):format(table.concat(parameters, ", "), body)
  local chunk, problem = loadstring(source, "=" .. text)
  if not chunk then return nil, (problem:gsub("^.-:%d+: ", "")) end
  return chunk()
end

local function find_lambda(text)
  local found = lambdas[text]
  if found then return found end
  local lambda, problem = make_lambda(text)
  if not lambda then return nil, problem end
  if lambda_count >= LAMBDAS_MAX then lambdas, lambda_count = {}, 0 end
  lambdas[text] = lambda
  lambda_count = lambda_count + 1
  return lambda
end

--- A function that finds itself in the worker, at its first call.
local function make_named(module, field)
  local found
  return function(...)
    if not found then
      local ok, loaded = pcall(require, module)
      if not ok then error(("cannot require '%s': %s"):format(module, tostring(loaded)), 0) end
      found = type(loaded) == "table" and loaded[field] or nil
      if found == nil then
        error(("module '%s' has no function '%s'"):format(module, field), 0)
      end
    end
    return found(...)
  end
end

--- The function that `f` means.
---@param f function|string
---@return function? f, string? problem
function functions.resolve(f)
  if type(f) == "function" then return f end
  if type(f) ~= "string" then return nil, "it must be a function or a string, got " .. type(f) end
  grammar = grammar or make_grammar()
  local module, field = grammar.path:match(f)
  if module then return make_named(module, field) end
  return find_lambda(f)
end

return functions
