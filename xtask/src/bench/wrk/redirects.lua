-- Asks for slugs. Arguments: a file of slugs of one length, one after the other; that
-- length; the order, which is walk (each once, over and over), uniform or zipf; how many of
-- them at most.

local slugs, length, count, order, tail
local at = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  slugs = file:read("*a")
  file:close()
  length = tonumber(args[2])
  count = math.min(#slugs / length, tonumber(args[4]))
  order = args[3]
  -- Each run asks in another order: were it always the same, a cache that is too small
  -- would in the end hold just what is asked for.
  math.randomseed(os.time())
  -- What a browser sends and a click keeps.
  tail = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
    .. "\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    .. "\r\nAccept: text/html\r\nAccept-Language: en-GB,en;q=0.5\r\n\r\n"
end

local function pick()
  if order == "walk" then
    at = at % count + 1
    return at
  elseif order == "uniform" then
    return math.random(count)
  end
  -- The inverse of Zipf's distribution function with exponent 1, to within the
  -- rounding of harmonic numbers to logarithms.
  return math.min(count, math.floor((count + 1) ^ math.random()))
end

function request()
  local first = (pick() - 1) * length
  return "GET /" .. string.sub(slugs, first + 1, first + length) .. tail
end
