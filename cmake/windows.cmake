# On Windows the linker must resolve every symbol, so node.lib is generated from the list of Node-API functions. The program may
# not be called node.exe (Electron, single executables), so a delay-load hook redirects the import to the running program.

list(GET CMAKE_JS_INC 0 NODE_API_HEADERS)
set(NODE_LIB "${CMAKE_CURRENT_BINARY_DIR}/node.lib")
execute_process(COMMAND "${CMAKE_AR}" "/def:${NODE_API_HEADERS}/../def/node_api.def" "/out:${NODE_LIB}" /machine:x64
                COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
target_sources(llama_headstart PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/cmake/windows-delay-load.cpp")
target_link_libraries(llama_headstart PRIVATE "${NODE_LIB}" delayimp)
target_link_options(llama_headstart PRIVATE /DELAYLOAD:node.exe)
