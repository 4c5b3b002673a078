// Five glossy spheres that go round and bounce; `clock` is the frame, and twelve frames are one turn.
#version 3.7;
global_settings { assumed_gamma 1.0 }

#declare Turn = clock / 12;
#declare Colours = array[5] {
    rgb <0.80, 0.10, 0.08>, rgb <0.85, 0.50, 0.05>, rgb <0.15, 0.55, 0.15>, rgb <0.10, 0.30, 0.80>, rgb <0.55, 0.15, 0.65>
}

camera { location <0, 2.6, -4.8> look_at <0, 0.6, 0> right x * image_width / image_height }
background { rgb <0.55, 0.70, 0.90> }
// An area light: its soft shadows are what takes the time.
light_source { <4, 8, -5> rgb 1.1 area_light 2*x, 2*z, 4, 4 adaptive 0 }
plane { y, 0 pigment { checker rgb 0.85, rgb 0.35 } finish { reflection 0.1 } }

#for (I, 0, 4)
    #declare Angle = 2 * pi * (I / 5 + Turn);
    sphere {
        <2 * cos(Angle), 0.6 + 0.9 * abs(sin(Angle + I)), 2 * sin(Angle)>, 0.6
        pigment { Colours[I] }
        finish { diffuse 0.7 specular 0.6 reflection 0.25 }
    }
#end
