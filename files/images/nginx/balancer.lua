--- Balancing by readiness. One worker asks Docker's DNS which replicas a service has and each replica
-- whether it is ready; every worker picks the least busy of the ready ones. Scaling, a stop or a hung
-- replica needs no reload, and a reload starts from the list that is already known.

local balancer = require "ngx.balancer"
local cjson = require "cjson.safe"
local ffi = require "ffi"
local resolver = require "nginx.dns.resolver"

local DOCKER_DNS = "127.0.0.11"
local INTERVAL_S = 0.5
-- A replica that was slow once is asked again without delay, so that one that hangs is out after two time-outs.
local DOUBT_INTERVAL_S = 0.1
local PROBE_TIMEOUT_MS = 800
-- One slow answer is load, two in a row are a replica that hangs, or whose threads are all busy for long.
local TIMEOUTS_UNTIL_OUT = 2
-- Every question that is given up waits in the server's queue until a thread is free, in the place of a request. So one
-- that is out is asked seldom; its answer is taken whenever it comes.
local PATIENT_TIMEOUT_MS = 10000
local EXTRA_TRIES = 2
local REPEATABLE = { GET = true, HEAD = true, OPTIONS = true }
-- The counters of addresses that are long gone do not pile up.
local SERVED_TTL_S = 86400
-- Linux' fcntl.h, and the most that a process without privileges may ask for.
local F_SETPIPE_SZ = 1031
local LOG_BYTES = 1048576

ffi.cdef "int fcntl(int fd, int command, ...);"

local shared = ngx.shared.balancer
local _M = {}

local services = {}
local requests_per_replica
local folder
local config_sha1
local generation

local in_flight = {}
-- The replicas whose answer is waited for.
local asked = setmetatable({}, { __mode = "k" })
local ready_lists = {}
local turns = 0

local function http_request(path, name)
  return "GET " .. path .. " HTTP/1.0\r\nHost: balancer\r\nX-Flask-Fleet-Service: " .. name .. "\r\n\r\n"
end

--- Length of a text as the uwsgi protocol writes it, the lower byte first.
local function length(text)
  return string.char(#text % 256, math.floor(#text / 256))
end

--- The same request in the uwsgi protocol: kind 0, length, 0, then names and values, each after its length.
local function uwsgi_request(path, name)
  local variables = {
    "REQUEST_METHOD", "GET", "REQUEST_URI", path, "PATH_INFO", path, "QUERY_STRING", "", "SERVER_PROTOCOL", "HTTP/1.0",
    "HTTP_HOST", "balancer", "SERVER_NAME", "balancer", "SERVER_PORT", "80",
    "HTTP_X_FLASK_FLEET_SERVICE", name,
  }
  for position, text in ipairs(variables) do
    variables[position] = length(text) .. text
  end
  local packed = table.concat(variables)
  return "\0" .. length(packed) .. "\0" .. packed
end

--- Reads one HTTP status code from a replica.
-- @return status code, or nil and "timeout" when it accepted the connection and gave no answer, or another error
local function ask(address, port, service, timeout_ms)
  local socket = ngx.socket.tcp()
  socket:settimeouts(PROBE_TIMEOUT_MS, PROBE_TIMEOUT_MS, timeout_ms)
  local ok, err = socket:connect(address, port)
  if not ok then
    -- The kernel accepts for a replica that is busy or hangs: whatever this is, nobody is there.
    return nil, "no connection: " .. err
  end
  local line
  ok, err = socket:send(service.request)
  if ok then
    line, err = socket:receive("*l")
  end
  socket:close()
  return line and tonumber(line:match("^HTTP/%d%.%d (%d%d%d)")), err
end

--- Asks a replica at the port of its service, and while a roll-out changes that, at those of the others too.
local function ask_anywhere(replica, address, service, timeout_ms)
  local status, err
  for _, port in ipairs(service.ports) do
    status, err = ask(address, port, service, timeout_ms)
    if status or err == "timeout" then
      replica.port = port
      break
    end
  end
  return status, err
end

local function served(address)
  return shared:get("served:" .. address) or 0
end

--- Reads a file that a roll-out leaves for the balancer; nil where there is none.
local function note(name)
  local file = io.open(folder .. name, "rb")
  if not file then
    return nil
  end
  local content = cjson.decode(file:read("*a"))
  file:close()
  return content
end

--- Where the replicas of a service may listen: at its own port first, then at those that it had.
local function ports(service)
  local found = { service.port }
  for _, port in ipairs(not service.uwsgi and (note("ports.json") or {})[service.name] or {}) do
    if port ~= service.port then
      found[#found + 1] = port
    end
  end
  return found
end

--- While a roll-out tries a version, the addresses that may get requests; nil at all other times.
-- It has an end, because a roll-out may be killed.
local function admitted()
  local roll_out = note("admitted.json")
  if not roll_out or roll_out.until_time < ngx.time() then
    return nil
  end
  local addresses = {}
  for _, address in ipairs(roll_out.addresses) do
    addresses[address] = true
  end
  return addresses
end

local function set_ready(replica, ready)
  replica.was_ready = replica.was_ready or ready
  replica.ready = ready
end

local function is_out(replica)
  return replica.timeouts >= TIMEOUTS_UNTIL_OUT
end

local function probe(replica, address, service)
  local before = served(address)
  local timeout_ms = is_out(replica) and PATIENT_TIMEOUT_MS or PROBE_TIMEOUT_MS
  local status, err = ask_anywhere(replica, address, service, timeout_ms)
  -- A replica that goes on answering requests is busy: its readiness answer waits in the same queue.
  replica.slow = err == "timeout" and served(address) == before
  replica.timeouts = replica.slow and replica.timeouts + 1 or 0
  replica.status = status
  replica.why = status and ("answered " .. status) or err
  if status == 200 then
    set_ready(replica, true)
  elseif err ~= "timeout" or is_out(replica) then
    set_ready(replica, false)
  end
end

--- Brings service.replicas in line with the addresses that Docker's DNS gives for the service's name.
-- Docker answers with those of one of nginx's networks, so the service's own is asked as well: while a service moves to
-- another network it has replicas in both. While DNS names none (the engine restarts) the known replicas stay.
local function resolve(service)
  local dns = resolver:new { nameservers = { DOCKER_DNS }, retrans = 2, timeout = 500 }
  local known = {}
  for _, name in ipairs { service.name, service.name .. "." .. service.network } do
    for _, answer in ipairs(dns and dns:query(name, { qtype = resolver.TYPE_A }) or {}) do
      if answer.address then
        known[answer.address] = service.replicas[answer.address] or { ready = false, timeouts = 0 }
      end
    end
  end
  if next(known) then
    service.replicas = known
  end
end

local function addresses_where(replicas, wanted)
  local addresses = {}
  for address, replica in pairs(replicas) do
    if wanted(replica) then
      addresses[#addresses + 1] = address .. ":" .. replica.port
    end
  end
  table.sort(addresses)
  return addresses
end

local function publish(service)
  local ready = addresses_where(service.replicas, function(replica) return replica.ready end)
  if #ready == 0 then
    -- All too busy to answer in time: a slow answer is better than none.
    ready = addresses_where(service.replicas, function(replica) return replica.slow end)
  end
  if #ready == 0 then
    -- All were told to stop at once: they serve until they end.
    ready = addresses_where(service.replicas, function(replica) return replica.was_ready and replica.status == 503 end)
  end
  shared:set("ready:" .. service.name, table.concat(ready, " "))
  shared:set("replicas:" .. service.name, cjson.encode(service.replicas))
end

--- Looks at one replica. What is known of it is used at once: the others may take long to answer.
local function look_at(replica, address, service, allowed)
  if allowed and not allowed[address] then
    set_ready(replica, false)
    replica.why = "held back until it is healthy"
  else
    asked[replica] = true
    probe(replica, address, service)
    asked[replica] = nil
  end
  publish(service)
end

local function refresh(service)
  resolve(service)
  service.ports = ports(service)
  local allowed = admitted()
  local probes = {}
  for address, replica in pairs(service.replicas) do
    if not asked[replica] then
      local patient = is_out(replica)
      local thread = ngx.thread.spawn(look_at, replica, address, service, allowed)
      if not patient then
        probes[#probes + 1] = thread
      end
    end
  end
  for _, thread in ipairs(probes) do
    ngx.thread.wait(thread)
  end
  for _, replica in pairs(service.replicas) do
    if replica.timeouts == 1 then
      return DOUBT_INTERVAL_S
    end
  end
  return INTERVAL_S
end

local function watch(premature, service)
  if premature then
    return
  end
  local ok, result = pcall(refresh, service)
  if not ok then
    ngx.log(ngx.ERR, "balancer: ", service.name, ": ", result)
  end
  ngx.timer.at(ok and result or INTERVAL_S, watch, service)
end

--- Called once per start or reload, before the workers exist.
-- @param path the configuration file that is being loaded; its SHA-1 tells later which one runs
-- @param list of {name, network, port, uwsgi, ready_path, retry_s, read_s}: the network is the one that the service
--   shares with nginx; uwsgi tells whether it speaks that protocol; then the seconds of silence after which another
--   replica is asked, where that is safe, or 0, and those after which a request is given up
-- @param requests how many a replica may have in flight
function _M.init(path, list, requests)
  local file = assert(io.open(path, "rb"))
  config_sha1 = ngx.sha1_bin(file:read("*a")):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  file:close()
  folder = path:match("^.*/")
  requests_per_replica = requests
  -- While dockerd is away nobody reads the log, and nginx waits for room in it: 3000 lines instead of 200.
  ffi.C.fcntl(1, F_SETPIPE_SZ, ffi.new("int", LOG_BYTES))
  generation = shared:incr("generation", 1, 0)
  for _, service in ipairs(list) do
    service.replicas = {}
    service.request = (service.uwsgi and uwsgi_request or http_request)(service.ready_path, service.name)
    services[service.name] = service
  end
end

--- Names the number of a replica's requests in flight in one worker; a reload counts anew.
local function busy_key(address, worker)
  return "busy:" .. generation .. ":" .. worker .. ":" .. address
end

function _M.init_worker()
  local id = ngx.worker.id()
  for name, service in pairs(services) do
    service.replicas = cjson.decode(shared:get("replicas:" .. name) or "{}") or {}
    for address in pairs(service.replicas) do
      -- Of a worker that crashed and had this number before.
      shared:delete(busy_key(address, id))
    end
    if id == 0 then
      ngx.timer.at(0, watch, service)
    end
  end
end

local function count(address, change)
  local requests = math.max(0, (in_flight[address] or 0) + change)
  in_flight[address] = requests > 0 and requests or nil
  shared:set(busy_key(address, ngx.worker.id()), requests)
end

--- Adds a replica's requests in flight up over all workers.
local function busy(one)
  local requests = 0
  for _, key in ipairs(one.keys) do
    requests = requests + (shared:get(key) or 0)
  end
  return requests
end

local function ready_list(name)
  local joined = shared:get("ready:" .. name) or ""
  local list = ready_lists[name]
  if not list or list.joined ~= joined then
    list = { joined = joined }
    for address, port in joined:gmatch("(%S+):(%d+)") do
      local keys = {}
      for worker = 0, ngx.worker.count() - 1 do
        keys[#keys + 1] = busy_key(address, worker)
      end
      list[#list + 1] = { address = address, port = tonumber(port), keys = keys, turn = 0 }
    end
    ready_lists[name] = list
  end
  return list
end

--- The least busy replica that has room and that this request has not tried; of equally busy ones the one that was
-- not chosen for longest.
local function least_busy(list, tried)
  local best, least
  for _, one in ipairs(list) do
    if not tried[one.address] then
      local requests = busy(one)
      if requests < requests_per_replica
        and (not best or requests < least or (requests == least and one.turn < best.turn)) then
        best, least = one, requests
      end
    end
  end
  return best
end

--- How long the next replica may be silent. Only the first one has a substitute: a second one that is as slow is no
-- fault of the replica's, and asking more of them would be load that feeds on itself.
local function patience(service, list, tried)
  if service.retry_s > 0 and #list > 1 and not next(tried) and REPEATABLE[ngx.req.get_method()] then
    return math.min(service.retry_s, service.read_s)
  end
  return service.read_s
end

--- balancer_by_lua: chooses the replica for this try of this request.
function _M.pick(name)
  local list = ready_list(name)
  local tried = ngx.ctx.tried
  if not tried then
    tried = {}
    ngx.ctx.tried = tried
    balancer.set_more_tries(math.max(0, math.min(EXTRA_TRIES, #list - 1)))
  end
  local chosen = least_busy(list, tried)
  if not chosen then
    -- Debian's nginx makes 500 of every status here; nginx.conf makes 503 of it.
    return ngx.exit(ngx.ERROR)
  end
  turns = turns + 1
  chosen.turn = turns
  balancer.set_timeouts(nil, nil, patience(services[name], list, tried))
  tried[chosen.address] = true
  count(chosen.address, 1)
  assert(balancer.set_current_peer(chosen.address, chosen.port))
end

--- log_by_lua: the request is over. upstream_addr names every replica tried and, unlike ngx.ctx,
-- survives an internal redirect to an error page.
function _M.done()
  local status = (ngx.var.upstream_status or ""):gmatch("[^%s,]+")
  for tried in (ngx.var.upstream_addr or ""):gmatch("[^%s,]+") do
    local address, answer = tried:match("^([%d%.]+):%d+$"), tonumber(status())
    if address then
      count(address, -1)
      -- 502 and 504 are nginx's own, for a replica that did not answer.
      if answer and answer ~= 502 and answer ~= 504 then
        shared:incr("served:" .. address, 1, 0, SERVED_TTL_S)
      end
    end
  end
end

--- Says that there is no answer now: with the page of the maintenance, if there is one, whatever the method.
function _M.unavailable()
  ngx.req.discard_body()
  local file = io.open(folder .. "maintenance.html", "rb")
  if not file then
    return ngx.exit(ngx.HTTP_SERVICE_UNAVAILABLE)
  end
  ngx.status = ngx.HTTP_SERVICE_UNAVAILABLE
  ngx.header.content_type = "text/html; charset=utf-8"
  ngx.print(file:read("*a"))
  file:close()
end

--- The running configuration and what is known of every replica, as JSON; 503 while a service has no ready replica.
function _M.status()
  local report = { config_sha1 = config_sha1, services = {} }
  for name in pairs(services) do
    local ready = ready_list(name)
    local replicas = cjson.decode(shared:get("replicas:" .. name) or "{}")
    for address, replica in pairs(replicas) do
      replica.served = served(address)
    end
    report.services[name] = { ready = #ready, replicas = replicas }
    if #ready == 0 then
      ngx.status = ngx.HTTP_SERVICE_UNAVAILABLE
    end
  end
  ngx.say(cjson.encode(report))
end

return _M
