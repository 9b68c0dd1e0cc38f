-- StreamV2V Camera: hotkeys in OBS's own Settings > Hotkeys for the running camera.
-- Part of StreamV2V Camera, Apache-2.0. Installed by `vcam obs install`; the profiles beside it are kept by the program.
--
-- A key sends obs-websocket's BroadcastCustomEvent, to which the running camera listens.

local obs = obslua
local PROFILES = script_path() .. "streamv2v-profiles.json"
local LOOK_AGAIN_MS = 5000

local VERBS = {
    { "next", "next profile" },
    { "previous", "previous profile" },
    { "toggle", "on / off" },
    { "panic", "panic (show nothing)" },
    { "resume", "resume" },
    { "forget", "forget earlier frames" },
    { "record-toggle", "record / end recording" },
    { "snapshot", "keep a picture" },
}

local hotkeys = {} -- name in the settings -> OBS's id of the hotkey
local saved = "{}" -- the settings as they were loaded: a profile may come later than its key

-- ---------------------------------------------------------------------------------------------- sending

local ffi, libobs, websocket

local function open_libobs()
    local found
    found, ffi = pcall(require, "ffi")
    if not found then return nil end
    pcall(ffi.cdef, [[
        typedef struct { uint8_t *stack; size_t size; size_t capacity; bool fixed; } sv_calldata;
        typedef struct { unsigned int status_code; char *comment; char *response_data; } sv_response;
        void *obs_get_proc_handler(void);
        bool proc_handler_call(void *handler, const char *name, sv_calldata *data);
        void calldata_set_data(sv_calldata *data, const char *name, const void *in, size_t size);
        bool calldata_get_data(const sv_calldata *data, const char *name, void *out, size_t size);
        void bfree(void *memory);
    ]])
    for _, candidate in ipairs({ function() return ffi.C end, function() return ffi.load("obs") end,
                                 function() return ffi.load("libobs.0.dylib") end }) do
        local ok, library = pcall(candidate)
        if ok and pcall(function() return library.obs_get_proc_handler end) then return library end
    end
    return nil
end

local function set_string(data, name, text)
    libobs.calldata_set_data(data, name, text, #text + 1)
end

local function websocket_handler()
    local data = ffi.new("sv_calldata")
    local out = ffi.new("void *[1]")
    local found = libobs.proc_handler_call(libobs.obs_get_proc_handler(), "obs_websocket_api_get_ph", data)
        and libobs.calldata_get_data(data, "ph", out, ffi.sizeof("void *"))
    if data.stack ~= nil then libobs.bfree(data.stack) end
    if not found or out[0] == nil then return nil end
    return out[0]
end

local function broadcast(json)
    if libobs == nil then return false end
    websocket = websocket or websocket_handler()
    if websocket == nil then return false end
    local data = ffi.new("sv_calldata")
    local out = ffi.new("sv_response *[1]")
    set_string(data, "request_type", "BroadcastCustomEvent")
    set_string(data, "request_data", json)
    local done = libobs.proc_handler_call(websocket, "call_request", data)
        and libobs.calldata_get_data(data, "response", out, ffi.sizeof("void *")) and out[0] ~= nil
    local delivered = false
    if done then
        delivered = out[0].status_code == 100
        if out[0].comment ~= nil then libobs.bfree(out[0].comment) end
        if out[0].response_data ~= nil then libobs.bfree(out[0].response_data) end
        libobs.bfree(out[0])
    end
    if data.stack ~= nil then libobs.bfree(data.stack) end
    return delivered
end

-- Where the websocket cannot be called from here, a source that lives for a moment carries the words in its name.
local function by_source(words)
    local source = obs.obs_source_create("text_ft2_source_v2", "StreamV2V: " .. words, nil, nil)
        or obs.obs_source_create("color_source", "StreamV2V: " .. words, nil, nil)
    if source ~= nil then obs.obs_source_release(source) end
end

local function send(words)
    local event, outer = obs.obs_data_create(), obs.obs_data_create()
    obs.obs_data_set_string(event, "streamv2v", words)
    obs.obs_data_set_obj(outer, "eventData", event)
    local json = obs.obs_data_get_json(outer)
    obs.obs_data_release(event)
    obs.obs_data_release(outer)
    if not broadcast(json) then by_source(words) end
end

-- ---------------------------------------------------------------------------------------------- hotkeys

local function register(name, description, words)
    if hotkeys[name] ~= nil then return end
    local id = obs.obs_hotkey_register_frontend(name, "StreamV2V Camera: " .. description, function(pressed)
        if pressed then send(words) end
    end)
    if id == nil then return end
    hotkeys[name] = id
    local settings = obs.obs_data_create_from_json(saved)
    local keys = obs.obs_data_get_array(settings, name)
    if keys ~= nil then
        obs.obs_hotkey_load(id, keys)
        obs.obs_data_array_release(keys)
    end
    obs.obs_data_release(settings)
end

local function register_profiles()
    local known = obs.obs_data_create_from_json_file(PROFILES)
    if known == nil then return end
    local list = obs.obs_data_get_array(known, "profiles")
    if list ~= nil then
        for index = 0, obs.obs_data_array_count(list) - 1 do
            local one = obs.obs_data_array_item(list, index)
            local id, name = obs.obs_data_get_string(one, "id"), obs.obs_data_get_string(one, "name")
            if id ~= "" then register("streamv2v.use." .. id, name ~= "" and name or id, "use " .. id) end
            obs.obs_data_release(one)
        end
        obs.obs_data_array_release(list)
    end
    obs.obs_data_release(known)
end

-- ---------------------------------------------------------------------------------------------- what OBS calls

function script_description()
    return "StreamV2V Camera: keys that switch the running camera.\n\nBind them in Settings > Hotkeys (search for "
        .. '"StreamV2V"). Tools > WebSocket Server Settings > Enable WebSocket server must be on.'
end

function script_load(settings)
    saved = obs.obs_data_get_json(settings) or "{}"
    libobs = open_libobs()
    for _, verb in ipairs(VERBS) do register("streamv2v." .. verb[1], verb[2], verb[1]) end
    register_profiles()
    obs.timer_add(register_profiles, LOOK_AGAIN_MS)
end

function script_save(settings)
    for name, id in pairs(hotkeys) do
        local keys = obs.obs_hotkey_save(id)
        obs.obs_data_set_array(settings, name, keys)
        obs.obs_data_array_release(keys)
    end
end
