# The libraries of the portable build. They have names of this package, so that another copy of ggml can be loaded in the same
# process. They have no version symlinks, because npm tarballs cannot contain symlinks. All of them are in the addon's directory.

set(LIBRARIES ggml-base ggml)
foreach(backend IN LISTS GGML_AVAILABLE_BACKENDS)
  if(TARGET ${backend})  # CMake's cache may hold a list from a configuration with other options
    list(APPEND LIBRARIES ${backend})
  endif()
endforeach()

# The libraries that the addon is linked to have the package's version in their names. So two versions of this package can run
# in one process, and a GPU module only loads with the version that it was built for. The names also tell musl from glibc,
# because prebuilds/ has both in one directory.
file(READ "${CMAKE_CURRENT_SOURCE_DIR}/package.json" MANIFEST)
string(JSON VERSION GET "${MANIFEST}" version)
if(EXISTS /etc/alpine-release AND NOT CMAKE_CROSSCOMPILING)  # the loader detects musl in the same way
  set(STEM headstart-musl)
else()
  set(STEM headstart)
endif()
target_compile_definitions(llama_headstart PRIVATE HEADSTART_CPU_PREFIX="${STEM}-ggml-cpu")

# A build for this machine loads the CUDA runtime and cuBLAS from the toolkit it was linked with. A published module leaves the
# search to the system (ldconfig, LD_LIBRARY_PATH).
if(TARGET ggml-cuda AND UNIX AND NOT HEADSTART_PUBLISHED)
  find_package(CUDAToolkit REQUIRED)
  set(TOOLKIT_RPATH "${CUDAToolkit_LIBRARY_DIR}")
endif()

set(ADDON_DIR "$<TARGET_FILE_DIR:llama_headstart>")
foreach(library IN LISTS LIBRARIES)
  # set_property without a value unsets the property. A version would create symlinks and put a number into the SONAME.
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
                     COMMAND ${CMAKE_COMMAND} -E copy_if_different "$<TARGET_FILE:${library}>" "${ADDON_DIR}" VERBATIM)
endforeach()
if(UNIX AND NOT APPLE)
  target_link_options(llama_headstart PRIVATE $<$<CONFIG:Release>:-s>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_link_options(llama_headstart PRIVATE -static-libstdc++ -static-libgcc)
  endif()
endif()
# Lists the addon's libraries for bin/lib/build-native.mjs, because the directory may also hold libraries of earlier versions.
file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/libraries.txt" CONTENT "$<JOIN:${FILES},\n>\n")
