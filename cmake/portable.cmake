# The portable shape's libraries: names of our own, so that another copy of ggml can live in the same process, no version
# symlinks, which npm's tarballs do not carry, and all in one folder with the addon.

set(LIBRARIES ggml-base ggml)
foreach(backend IN LISTS GGML_AVAILABLE_BACKENDS)
  if(TARGET ${backend})  # the list is in CMake's cache, which may have seen other options
    list(APPEND LIBRARIES ${backend})
  endif()
endforeach()

# What the addon is linked to says its version, so that two versions of this package can live in one process, and a GPU's
# module fits the version it was made for. prebuilds/ keeps both libcs of a platform in one folder.
file(READ "${CMAKE_CURRENT_SOURCE_DIR}/package.json" MANIFEST)
string(JSON VERSION GET "${MANIFEST}" version)
if(EXISTS /etc/alpine-release AND NOT CMAKE_CROSSCOMPILING) # the loader's rule
  set(STEM headstart-musl)
else()
  set(STEM headstart)
endif()
target_compile_definitions(llama_headstart PRIVATE HEADSTART_CPU_PREFIX="${STEM}-ggml-cpu")

# A build for this machine finds CUDA's runtime and cuBLAS where it was linked to them; a published module finds them where the system
# looks (ldconfig, LD_LIBRARY_PATH).
if(TARGET ggml-cuda AND UNIX AND NOT HEADSTART_PUBLISHED)
  find_package(CUDAToolkit REQUIRED)
  set(TOOLKIT_RPATH "${CUDAToolkit_LIBRARY_DIR}")
endif()

set(TOGETHER "$<TARGET_FILE_DIR:llama_headstart>")
foreach(library IN LISTS LIBRARIES)
  # Assigning nothing to a property unsets it: with a version there would be symlinks, and a number in the SONAME.
  set_property(TARGET ${library} PROPERTY VERSION)
  set_property(TARGET ${library} PROPERTY SOVERSION)
  set(NAME "${STEM}-${library}")
  if(library MATCHES "^ggml(-base)?$")
    string(APPEND NAME "-${VERSION}")
  endif()
  set_target_properties(${library} PROPERTIES PREFIX "" OUTPUT_NAME "${NAME}"
                        INSTALL_RPATH "${CMAKE_INSTALL_RPATH}" BUILD_WITH_INSTALL_RPATH ON)
  if(library STREQUAL ggml-cuda AND TOOLKIT_RPATH)
    set_property(TARGET ${library} APPEND PROPERTY INSTALL_RPATH "${TOOLKIT_RPATH}")
  endif()
  if(UNIX AND NOT APPLE)
    set(MAP "${CMAKE_CURRENT_SOURCE_DIR}/native/exports-ggml.map")
    target_link_options(${library} PRIVATE -Wl,--gc-sections "-Wl,--version-script=${MAP}" $<$<CONFIG:Release>:-s>)
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      target_link_options(${library} PRIVATE -static-libstdc++ -static-libgcc)
    endif()
  endif()
  list(APPEND FILES "$<TARGET_FILE_NAME:${library}>")
  add_dependencies(llama_headstart ${library})
  add_custom_command(TARGET llama_headstart POST_BUILD
                     COMMAND ${CMAKE_COMMAND} -E copy_if_different "$<TARGET_FILE:${library}>" "${TOGETHER}" VERBATIM)
endforeach()
if(UNIX AND NOT APPLE)
  target_link_options(llama_headstart PRIVATE $<$<CONFIG:Release>:-s>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_link_options(llama_headstart PRIVATE -static-libstdc++ -static-libgcc)
  endif()
endif()
# What belongs to the addon, for bin/lib/build-native.mjs: the folder may hold libraries of earlier versions too.
file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/libraries.txt" CONTENT "$<JOIN:${FILES},\n>\n")
