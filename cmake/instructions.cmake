# Excludes instructions that llama.cpp must not use. Include this file after the targets of llama.cpp exist.
if(NOT MSVC AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  # llama.cpp v0.5.0 must not use these instructions. Other AVX-512 instructions stay enabled.
  # - AMX: with the f16 weights of recurrent models, the AMX kernels read outside their tensors. GCC before 11.5, 12.4
  #   and 13.3 also miscompiles the kernels (GCC bug 114098): a quantized model ends the process with an illegal
  #   instruction.
  # - AVX512-FP16: llama.cpp would sum up single tokens in half precision, but not prompts. Replies from cached state
  #   would then differ from replies without a cache.
  include(CheckCXXCompilerFlag)
  foreach(INSTRUCTIONS IN ITEMS amx-tile amx-int8 amx-bf16 avx512fp16)
    check_cxx_compiler_flag(-mno-${INSTRUCTIONS} HAS_NO_${INSTRUCTIONS})
    foreach(CPU_MODULE IN ITEMS ggml-cpu ggml-cpu-sapphirerapids)
      if(HAS_NO_${INSTRUCTIONS} AND TARGET ${CPU_MODULE})
        target_compile_options(${CPU_MODULE} PRIVATE -mno-${INSTRUCTIONS})
      endif()
    endforeach()
  endforeach()
endif()
